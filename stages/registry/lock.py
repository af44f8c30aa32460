"""One decision at a time for a registered model, on whatever machine: reading and moving its alias is one step.

MLflow has no compare-and-set. But two models of one name cannot be registered, whichever database it keeps: so a
registered model with a name of its own is the lock.
"""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

PATIENCE_SECONDS = 60.0
POLL_SECONDS = 0.1


class LockedError(RuntimeError):
    """Somebody else is deciding, or died while doing so."""


def lock_name(name: str) -> str:
    """The registered model that stands for the lock of another one."""
    return f"{name}.deciding"


@contextmanager
def deciding(client: "MlflowClient", name: str, patience: float = PATIENCE_SECONDS) -> Iterator[None]:
    """Hold the lock of a registered model.

    Args:
        patience: seconds to wait for it.

    Raises:
        LockedError: it was not to be had; says who holds it and how to take it away from one that died.
    """
    lock, holder = lock_name(name), f"{socket.gethostname()}, process {os.getpid()}"
    _acquire(client, lock, holder, time.monotonic() + patience)
    try:
        yield
    finally:
        client.delete_registered_model(lock)


def _acquire(client: "MlflowClient", lock: str, holder: str, deadline: float) -> None:
    from mlflow.exceptions import MlflowException

    while True:
        try:
            client.create_registered_model(lock, description=holder)
            return
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        if time.monotonic() >= deadline:
            raise LockedError(
                f"another decision is under way, by {_holder(client, lock)}; if that is dead, delete the registered "
                f"model {lock} in MLflow's UI and decide again"
            )
        time.sleep(POLL_SECONDS)


def _holder(client: "MlflowClient", lock: str) -> str:
    from mlflow.exceptions import MlflowException

    try:
        return str(client.get_registered_model(lock).description)
    except MlflowException:  # released in this very moment
        return "somebody who has just finished"
