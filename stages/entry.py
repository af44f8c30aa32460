"""The start of every stage: check the recipe and start the processes before anything heavy is imported.

A stage module runs as `python -m stages.<stage>` and hands over to `run_stage` on its first line. `run_stage` imports
the module once more, by its name, and calls its `main`.
"""

import importlib
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from stages.recipe.process_environment import settle
from stages.recipe.recipe import Recipe, load
from stages.tracking.failure_report import reported_failure
from stages.training.launch import launch


def run_stage(stage: str, *, distributed: bool = False, skip: Callable[[Recipe, str], bool] | None = None) -> NoReturn:
    """Check params.yaml, start the stage's processes, and run `stages.<stage>.main(recipe, *arguments)`.

    Args:
        stage: name of the stage, which is the name of its module.
        distributed: whether the stage trains in `engine.processes` processes.
        skip: says from the recipe and the stage's argument that there is nothing to do, and leaves the outputs that
            later stages expect.
    """
    settle(os.environ)
    recipe, module, arguments = load(), f"stages.{stage}", sys.argv[1:]
    if skip is not None and arguments and skip(recipe, arguments[0]):
        sys.exit()
    with reported_failure():
        if distributed:
            launch([module, *arguments], recipe.engine.processes)
        importlib.import_module(module).main(recipe, *arguments)
    sys.exit()
