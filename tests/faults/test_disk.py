"""A disk that is full while a stage writes its outputs."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.test_curate import CURATED, files, recipe_here, run, write_sources  # noqa: F401 (a fixture)


@contextmanager
def no_room(num_bytes: int) -> Iterator[None]:
    """No file may grow longer: a write fails as one that finds no room (Python ignores the signal)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_last_good_tables_and_the_next_run_ends_as_if_nothing_had_been(
    recipe_here: dict[str, Any],  # noqa: F811
) -> None:
    run(recipe_here)
    before = files(CURATED)
    write_sources(num_articles=80)
    with no_room(6000), pytest.raises(OSError, match="File too large"):
        run(recipe_here)
    assert files(CURATED) == before
    assert not Path(".stillhouse/curating").exists()
    run(recipe_here)
    after = files(CURATED)
    assert after != before
    run(recipe_here)
    assert files(CURATED) == after
