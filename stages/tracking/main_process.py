"""Tells the process of a stage that writes from the others of a distributed training."""

import os


def is_main_process() -> bool:
    """Return whether this process writes outputs, checkpoints and records: the only one, or that of rank 0."""
    return os.environ.get("RANK", "0") == "0"
