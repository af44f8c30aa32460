"""A task that the recipe leaves out: what the other stages expect in place of its adapter. Imports nothing heavy."""

import shutil

from stages.recipe.adapt import Adapt
from stages.recipe.fields import TASKS
from stages.recipe.paths import ADAPTED
from stages.tracking.lineage import write_lineage
from stages.training.curves import write_curve


def leave_absent(adapt: Adapt, task: str) -> bool:
    """Write an empty curve and lineage for a task that is not trained; return whether it is such a task."""
    if task not in TASKS or task in adapt.tasks:
        return False
    shutil.rmtree(ADAPTED / task, ignore_errors=True)
    write_curve(ADAPTED / task / "curve.csv", [])
    write_lineage(f"adapt@{task}", {})
    print(f"adapt.{task} has no sources, so no adapter is trained for it")
    return True
