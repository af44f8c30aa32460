"""Garbage collection of the working store of teacher vectors, and the right to write to it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from stages.recipe.paths import EMBEDDED, VECTORS
from stages.teachers.vector_store import MANIFEST, VectorStore


def main() -> None:
    """Delete from the working store what the last build does not hold, and print the numbers of vectors."""
    num_deleted, num_left = collect()
    print(f"{VECTORS}: {num_deleted} vectors deleted; {num_left} left, all of which {EMBEDDED} holds")


def collect() -> tuple[int, int]:
    """Delete from the working store what the last build does not hold, and the stores of other teachers.

    >>> num_deleted, num_left = collect()

    Returns:
        Numbers of vectors deleted and left.

    Raises:
        RuntimeError: another process writes to the working store.
        ValueError: data/embedded holds no store, so that nothing says which vectors to keep.
    """
    build = VectorStore(EMBEDDED)
    num_deleted = num_left = 0
    with only_writer(VECTORS):
        for manifest in sorted(VECTORS.glob(f"*/{MANIFEST}")):
            store = VectorStore(manifest.parent)
            if store.fingerprint == build.fingerprint:
                num_deleted += store.delete_except(build.all_keys())
                num_left += len(store)
            else:
                num_deleted += len(store)
                shutil.rmtree(manifest.parent)
    return num_deleted, num_left


@contextmanager
def only_writer(working: Path) -> Iterator[None]:
    """Hold the only right to write to the working store.

    Raises:
        RuntimeError: another process holds it.
    """
    working.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(working / "writer.lock", timeout=0):
            yield
    except Timeout as error:
        raise RuntimeError(f"another process writes to {working}; wait for it or stop it") from error
