"""Explicit negatives of pairs: texts that a source names as no answer to a query. None may be the text of a test row.

A test text in the place of a negative gives no answer away, yet a model that is trained on it has met it. So the text
is left out, while its pair stays. Only equal texts are found, not similar ones.
"""

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from stages.corpus.roles import DOCUMENT, text_key
from stages.corpus.source_ingest import SourceIngest
from stages.corpus.tables import SPLITS

TEST = SPLITS.index("test")


class ExplicitNegatives:
    """Leaves test texts out of the explicit negatives of rows, and counts both by name of source.

    Args:
        sources: all sources, after repeats and overlaps were rejected.
    """

    def __init__(self, sources: Sequence[SourceIngest]) -> None:
        self.counts: dict[str, Counter[str]] = {}
        self._tested: set[int] = set()
        if any("negatives" in source.section.options for source in sources):
            self._tested = {key for source in sources for key in _tested_keys(source)}

    def without_tested(self, source: str, rows: pa.Table) -> pa.Table:
        """Return rows of a source of pairs, without negatives that are texts of test rows."""
        given = rows["negatives"].to_pylist()
        if not any(given):
            return rows
        left = [[text for text in texts if text_key(DOCUMENT, text) not in self._tested] for texts in given]
        counts = self.counts.setdefault(source, Counter(kept=0, in_test=0))
        counts["kept"] += (kept := sum(map(len, left)))
        counts["in_test"] += sum(map(len, given)) - kept
        at = rows.schema.get_field_index("negatives")
        return rows.set_column(at, rows.schema.field(at), pa.array(left, rows.schema.field(at).type))


def _tested_keys(source: SourceIngest) -> set[int]:
    keys: set[int] = set()
    kept = source.kept_rows()
    is_test = source.splits == TEST
    for where, table in source.batches(source.fields):
        rows = kept[(kept >= where.start) & (kept < where.stop)]
        tested = table.take(rows[is_test[rows]] - where.start)
        keys.update(text_key(DOCUMENT, text) for field in source.fields for text in tested[field].to_pylist())
    return keys
