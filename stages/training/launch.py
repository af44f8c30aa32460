"""Several processes for a training stage: one for each GPU, or as many as asked for, on one machine or on several."""

import os
import sys
from collections.abc import Sequence

MACHINES = "STILLHOUSE_MACHINES"


def launch(command: Sequence[str], processes: int) -> None:
    """Go on as `processes` processes running a module, or return where one is enough or where this is one of them.

    Nothing heavy is imported before. They run on this machine, or shared by as many as STILLHOUSE_MACHINES says.
    `--multi_gpu` is accelerate's name for several processes on one machine; without a GPU they are CPU processes that
    talk through gloo (its `--cpu` silently starts one).

    Args:
        command: the module's name and its arguments.

    Raises:
        ValueError: the machines cannot have the same number of processes.
    """
    if processes == 1 or "RANK" in os.environ:
        return
    sys.stdout.flush()
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes)]
    # What accelerate would warn about: no precision or dynamo of its own.
    launcher += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    machines = int(os.environ.get(MACHINES, "1"))
    if machines > 1:
        from stages.training.multi_node import run_on_machines

        if processes % machines:
            raise ValueError(f"got {MACHINES} {machines}, expected a divisor of engine.processes, {processes}")
        sys.exit(run_on_machines(launcher, command, machines))
    # Each launch has a rendezvous of its own.
    launcher += ["--num_machines", "1", "--main_process_port", "0", "-m", *command]
    os.execv(launcher[0], launcher)  # noqa: S606
