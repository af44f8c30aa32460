"""Check: the recipe, before any other stage's outputs are touched.

Writes data/checked/recipe.txt, whose content never changes: other stages wait for the check and do not re-run because
of it.
"""

import sys
from pathlib import Path

from stages.recipe.paths import CHECKED, RECIPE
from stages.recipe.recipe import load


def main(file: Path = RECIPE) -> None:
    """Check a recipe file, and leave the mark that the other stages wait for where it is params.yaml itself."""
    recipe = load(file)
    print(f"{file}: recipe {recipe.name} is valid")
    if file == RECIPE:
        CHECKED.mkdir(parents=True, exist_ok=True)
        (CHECKED / "recipe.txt").write_text("checked\n", encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
