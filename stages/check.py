"""Check: the recipe, before any other stage's outputs are touched.

Writes data/checked/recipe.txt, whose content never changes: the other stages wait for the check, and do not run again
because of it.
"""

import sys
from pathlib import Path

from stages.recipe.paths import CHECKED, RECIPE
from stages.recipe.recipe import load


def main(file: Path = RECIPE, /) -> None:
    """Check a recipe; where it is params.yaml, also write the file that the other stages wait for.

    Args:
        file: Recipe to check.
    """
    recipe = load(file)
    print(f"{file}: recipe {recipe.name} is valid")
    if file == RECIPE:
        CHECKED.mkdir(parents=True, exist_ok=True)
        (CHECKED / "recipe.txt").write_text("checked\n", encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
