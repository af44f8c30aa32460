"""Which process of a stage this is."""

import os


def first() -> bool:
    """Whether this is the process that writes: outputs, checkpoints, records."""
    return os.environ.get("RANK", "0") == "0"
