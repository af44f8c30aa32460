"""Starts the processes of a training stage: one for each GPU, or as many as asked for, on one machine or several."""

import os
import sys
from collections.abc import Sequence

from stages.recipe.paths import MACHINES_VARIABLE
from stages.training.multi_node import run_on_machines


def launch(command: Sequence[str], processes: int) -> None:
    """Replace this process by `processes` processes of a module; return where it is one of them, or one is enough.

    They run on this machine, or share the machines whose number STILLHOUSE_MACHINES gives.

    Args:
        command: the module's name and its arguments.

    Raises:
        ValueError: the machines cannot have the same number of processes.
    """
    if processes == 1 or "RANK" in os.environ:
        return
    sys.stdout.flush()
    # `--multi_gpu` is accelerate's name for several processes; without a GPU they are CPU processes that communicate
    # through gloo (its `--cpu` silently starts a single one). The last two flags prevent its warnings.
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes)]
    launcher += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    machines = int(os.environ.get(MACHINES_VARIABLE, "1"))
    if processes % machines:
        raise ValueError(f"got {MACHINES_VARIABLE} {machines}, expected a divisor of engine.processes, {processes}")
    if machines > 1:
        sys.exit(run_on_machines(launcher, command, machines))
    # Port 0: each launch finds a free port of its own.
    launcher += ["--num_machines", "1", "--main_process_port", "0", "-m", *command]
    os.execv(launcher[0], launcher)  # noqa: S606
