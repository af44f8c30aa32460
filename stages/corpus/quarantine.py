"""Rejected rows: every one is kept with its source, its reason and its texts as they were read, and counted."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from stages.corpus.tables import REJECTED, TableWriter

MAX_EXAMPLES, EXAMPLE_CHARACTERS = 3, 300
_HELD_ROWS, _HELD_CHARACTERS = 4096, 2**24


class Quarantine:
    """Writes rejected rows to a parquet file as they come."""

    def __init__(self, path: Path) -> None:
        self._writer = TableWriter(path, REJECTED)
        self._held: list[dict[str, Any]] = []
        self._num_characters = 0
        self._counts: Counter[tuple[str, str]] = Counter()
        self._examples: dict[tuple[str, str], list[str]] = {}

    def add(self, source: str, kind: str, reason: str, entity: str | None, texts: Sequence[str]) -> None:
        """Keep a row."""
        self._counts[source, reason] += 1
        examples = self._examples.setdefault((source, reason), [])
        if len(examples) < MAX_EXAMPLES:
            examples.append(" | ".join(texts)[:EXAMPLE_CHARACTERS])
        row = {"source": source, "kind": kind, "reason": reason, "entity": entity, "texts": list(texts)}
        self._held.append(row)
        self._num_characters += sum(map(len, texts))
        if len(self._held) >= _HELD_ROWS or self._num_characters >= _HELD_CHARACTERS:
            self._write()

    def close(self) -> None:
        """Finish the file."""
        self._write()
        self._writer.close()

    def counts(self, source: str) -> dict[str, int]:
        """Rejected rows of a source by reason, in alphabetical order."""
        return {reason: rows for (name, reason), rows in sorted(self._counts.items()) if name == source}

    def by_reason(self) -> list[dict[str, Any]]:
        """{source, reason, rows, examples} of every source and reason, in alphabetical order."""
        return [
            {"source": source, "reason": reason, "rows": rows, "examples": self._examples[source, reason]}
            for (source, reason), rows in sorted(self._counts.items())
        ]

    def _write(self) -> None:
        if self._held:
            self._writer.write(pa.Table.from_pylist(self._held, schema=REJECTED))
            self._held, self._num_characters = [], 0
