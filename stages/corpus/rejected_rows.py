"""Rejected rows: each is written with its source, its reason and its texts as they were read, and counted."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from stages.corpus.tables import REJECTED, TableWriter

MAX_EXAMPLES, EXAMPLE_CHARACTERS = 3, 300
# Rows or characters that are held in memory before they are written.
_HELD_ROWS, _HELD_CHARACTERS = 4096, 2**24
# Status of a row; every higher number is that of a reason for rejecting it.
KEPT, OVER_MAX_ROWS = 0, 1


class Reasons:
    """Reasons for rejecting rows, and their numbers."""

    def __init__(self) -> None:
        self._texts = ["kept", "over max_rows"]

    def number(self, text: str) -> int:
        """Return the number of a reason, which it gets at its first use."""
        if text not in self._texts:
            self._texts.append(text)
        return self._texts.index(text)

    def __getitem__(self, number: int) -> str:
        return self._texts[number]


class RejectedRows:
    """Writes rejected rows to a parquet file as they come."""

    def __init__(self, path: Path) -> None:
        self._writer = TableWriter(path, REJECTED)
        self._held: list[dict[str, Any]] = []
        self._num_characters = 0
        self._counts: Counter[tuple[str, str]] = Counter()
        self._examples: dict[tuple[str, str], list[str]] = {}

    def add(self, source: str, kind: str, reason: str, entity: str | None, texts: Sequence[str]) -> None:
        """Write a row; `entity` is None where the row could not be read."""
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
        """Count the rejected rows of a source by reason, in alphabetical order."""
        return {reason: rows for (name, reason), rows in sorted(self._counts.items()) if name == source}

    def by_reason(self) -> list[dict[str, Any]]:
        """Return {source, reason, rows, examples} of every source and reason, in alphabetical order."""
        return [
            {"source": source, "reason": reason, "rows": rows, "examples": self._examples[source, reason]}
            for (source, reason), rows in sorted(self._counts.items())
        ]

    def _write(self) -> None:
        if self._held:
            self._writer.write(pa.Table.from_pylist(self._held, schema=REJECTED))
            self._held, self._num_characters = [], 0
