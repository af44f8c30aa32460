"""How every stage starts: the recipe is checked and the stage's processes are started before anything heavy is imported.

A stage module runs as `python -m stages.<stage>` and hands over to `run_stage` on its first line. `run_stage` imports
the module once more, by its name, and calls its `main`.
"""

import importlib
import sys
from typing import NoReturn

from stages.recipe.recipe import load
from stages.training.launch import launch


def run_stage(stage: str, *, distributed: bool = False) -> NoReturn:
    """Check params.yaml, start the stage's processes, and run `stages.<stage>.main(recipe, *arguments)`.

    Args:
        stage: name of the stage, which is the name of its module.
        distributed: whether the stage trains in `engine.processes` processes.
    """
    recipe, module, arguments = load(), f"stages.{stage}", sys.argv[1:]
    if distributed:
        launch([module, *arguments], recipe.engine.processes)
    importlib.import_module(module).main(recipe, *arguments)
    sys.exit()
