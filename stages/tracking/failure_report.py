"""Failure reports: files in which the processes of a stage tell the flow that started them how they ended.

The flow names a folder in STILLHOUSE_FAILURES. A process that fails writes the classes of its exceptions there. One of
several processes (a rank) also leaves an empty report while it runs, which stays behind where a signal ends it.
"""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.recipe.paths import FAILURES_VARIABLE


@contextmanager
def reported_failure() -> Iterator[None]:
    """Report an exception that leaves the block, where a flow asked for reports."""
    folder = os.environ.get(FAILURES_VARIABLE)
    if folder is None:
        yield
        return
    report = Path(folder) / f"{socket.gethostname()}-{os.getpid()}.json"
    if "RANK" in os.environ:
        report.write_text("null", encoding="utf-8")
    try:
        yield
    except BaseException as error:
        report.write_text(json.dumps(described(error)), encoding="utf-8")
        raise
    report.unlink(missing_ok=True)


def described(error: BaseException) -> dict[str, Any]:
    """Describe an exception by its classes, those of its causes, and the module that raised it.

    Returns:
        {"chain": [[class, base class, ...], ...], "raised_in": module}; the exception comes before its causes, and
        every class has its module's name in front.
    """
    chain: list[list[str]] = []
    cause: BaseException | None = error
    while cause is not None and len(chain) < 20:
        chain.append([f"{kind.__module__}.{kind.__qualname__}" for kind in type(cause).__mro__])
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return {"chain": chain, "raised_in": "" if frame is None else str(frame.tb_frame.f_globals.get("__name__", ""))}
