"""The recipe of a rebuild: choose it, check it with the commit's own code, confine its paths, and lower its memory."""

import io
import sys
from typing import Any

from prefect import get_run_logger
from ruamel.yaml import YAML

from flows.confinement import check_places, mounts
from flows.process_group import output
from flows.workspace import Workspace
from stages.recipe.paths import RECIPE

# A smaller micro-batch could not hold a text of usual length.
LEAST_MICRO_BATCH_TOKENS = 256


def choose_recipe(space: Workspace, recipe: str | None) -> None:
    """Check a recipe of the commit and make it the workspace's params.yaml.

    Raises:
        ValueError: the file is missing, is no valid recipe, or names a path outside the workspace; one line for each
            fault.
    """
    file = space.folder / (recipe or RECIPE)
    if not file.resolve().is_relative_to(space.folder.resolve()):
        raise ValueError(f"recipe: {recipe!r} leads out of the workspace; name a file of the commit")
    if not file.is_file():
        raise ValueError(f"recipe: commit {space.commit[:12]} has no file {recipe!r}; commit it, or correct git_ref")
    try:
        output([sys.executable, "-m", "stages.check", str(file.relative_to(space.folder))], space.folder)
    except RuntimeError as error:
        raise ValueError(f"recipe: {error}") from error
    text = file.read_text(encoding="utf-8")
    check_places(YAML(typ="safe").load(text), space.folder, mounts())
    space.use_recipe(text, f"Recipe {recipe}")


def read_recipe(space: Workspace) -> dict[str, Any]:
    """Read the values of the workspace's params.yaml, which `choose_recipe` has checked."""
    values: dict[str, Any] = YAML(typ="safe").load(space.folder / RECIPE)
    return values


def halve_micro_batch(space: Workspace) -> bool:
    """Halve `engine.micro_batch_tokens`, which changes memory and no gradient, and tell whether that was possible.

    The recipe itself changes, so that branch, lock and model agree; every stage that reads `engine` becomes stale.
    """
    yaml = YAML()  # keeps comments
    yaml.preserve_quotes = True
    yaml.width = 4096
    values = yaml.load(space.folder / RECIPE)
    before = values["engine"]["micro_batch_tokens"]
    after = before // 2
    if after < LEAST_MICRO_BATCH_TOKENS:
        return False
    values["engine"]["micro_batch_tokens"] = after
    text = io.StringIO()
    yaml.dump(values, text)
    space.use_recipe(text.getvalue(), f"engine.micro_batch_tokens {before} to {after}: the device's memory was full")
    get_run_logger().warning("the device's memory was full: again with engine.micro_batch_tokens %d", after)
    return True
