"""Several processes for a training stage, started by `accelerate launch`: one for each GPU, or as many as asked for."""

import os
import sys


def launch(module: str, processes: int) -> None:
    """Go on as `processes` processes running `module`, or return where one is enough or where this is one of them.

    Nothing heavy is imported before. `--multi_gpu` is accelerate's name for several processes on one machine; without a
    GPU they are CPU processes that talk through gloo (its `--cpu` silently starts one).
    """
    if processes == 1 or "RANK" in os.environ:
        return
    sys.stdout.flush()
    command = ["--multi_gpu", "--num_machines", "1", "--num_processes", str(processes)]
    # What accelerate would ask for or warn about: one rendezvous for each launch, no precision or dynamo of its own.
    command += ["--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no", "-m", module]
    os.execv(sys.executable, [sys.executable, "-m", "accelerate.commands.launch", *command])  # noqa: S606


def first() -> bool:
    """Whether this is the process that writes: outputs, checkpoints, records."""
    return os.environ.get("RANK", "0") == "0"
