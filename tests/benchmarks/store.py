"""Speed and memory of the store of teacher vectors with a million vectors."""

import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from stages.teachers.shards import KEY, packed_keys
from stages.teachers.vector_store import VectorStore
from tests.benchmarks.measure import Figure, most_resident

ROWS, DIMENSIONS, SHARD_ROWS, ASKED = 1_000_000, 384, 65_536, 20_000


def store_scale() -> dict[str, Figure]:
    """Open a store of a million rows, look up 20,000 random rows, and export all rows from a working store.

    Memory is the growth of this process during a lookup, pages of the mapped shards included.
    """
    generator = np.random.default_rng(0)
    keys = packed_keys([])
    with tempfile.TemporaryDirectory(prefix="stillhouse-store-") as folder:
        working = VectorStore(Path(folder) / "working", {"bench": True})
        for start in range(0, ROWS, SHARD_ROWS):
            rows = min(SHARD_ROWS, ROWS - start)
            new = np.frombuffer(generator.bytes(rows * KEY.itemsize), dtype=KEY)
            working.add(new, generator.standard_normal((rows, DIMENSIONS), dtype=np.float32))
            keys = np.concatenate([keys, new])
        started = time.perf_counter()
        working.export(keys, Path(folder) / "exported", SHARD_ROWS)
        exported = time.perf_counter() - started

        started = time.perf_counter()
        store = VectorStore(Path(folder) / "exported")
        opened = time.perf_counter() - started
        asked = generator.choice(keys, ASKED, replace=False)
        first = _seconds(store, asked)  # The first lookup also compares every shard with its checksum.
        process = psutil.Process()
        before, again = process.memory_info().rss, []
        peak = most_resident(lambda: again.append(_seconds(store, asked)), lambda: [process], every=0.01)
    return {
        "store_export_seconds": Figure(exported, "s"),
        "store_open_seconds": Figure(opened, "s"),
        "store_first_lookup_seconds": Figure(first, "s"),
        "store_lookup_rows": Figure(ASKED / again[0], "rows/s"),
        "store_lookup_bytes": Figure(max(0, peak - before), "bytes"),
    }


def _seconds(store: VectorStore, asked: np.ndarray) -> float:
    started = time.perf_counter()
    store.lookup(asked)
    return time.perf_counter() - started
