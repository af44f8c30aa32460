"""The texts of all kept rows as a table, and on disk under the keys of their words and MinHash signatures.

A text is entered under its own role. A text of a test row is entered under the other roles too, because training on it
in any role would give it away; halves of scored pairs, which have no role of their own, are entered as documents. A
short text is a name or a common phrase, which gives nothing away in another role.

Shapes: T texts of kept rows, in the order of sources, rows and fields; R rows of a batch, F their fields.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash

from stages.corpus.buckets import Buckets
from stages.corpus.minhash import NUM_BANDS, NUM_PERMUTATIONS, bands, signatures, similarity
from stages.corpus.rejected_rows import KEPT
from stages.corpus.roles import DOCUMENT, ROLES, SCORED, role_of, text_key, text_keys
from stages.corpus.source_ingest import SourceIngest
from stages.corpus.tables import SPLITS
from stages.corpus.text_length import count_words

TEST = SPLITS.index("test")
# Words from which a text counts in a role that is not its own.
MIN_WORDS_OF_OTHER_ROLE = 5
# The source by its position, the row by its number in the source, the field by its position, the split in SPLITS.
TEXT = np.dtype([("source", "<u2"), ("row", "<u4"), ("field", "u1"), ("split", "u1"), ("language", "<u2")])
ENTRY = (("other_role", "u1"), ("text", "<u8"))


class TextIndex:
    """Texts of sources, to find those that are equal or similar.

    Args:
        jaccard: lowest similarity that is looked for; shorter texts than it allows are not entered as similar.
        folder: a new folder, for what is kept on disk meanwhile.

    Attributes:
        texts: the table [T] of TEXT.
        equal, similar: entries of texts under the keys of their words, and under each band of their signature.
        entities: the first text of each row under the key of the row's entity.
    """

    def __init__(self, sources: Sequence[SourceIngest], jaccard: float, folder: Path) -> None:
        self.sources, self._jaccard = sources, jaccard
        self._rows = [source.kept_rows().astype(np.uint32) for source in sources]
        tables = [_table(number, source, self._rows[number]) for number, source in enumerate(sources)]
        self.texts = np.concatenate(tables)
        self.equal, self.similar = Buckets(folder / "equal", ENTRY), Buckets(folder / "similar", ENTRY)
        self.entities = Buckets(folder / "entities", ENTRY)
        self._signatures = folder / "signatures.bin"
        with self._signatures.open("wb") as file:
            for source, numbers, rows in self.batches():
                self._add(source, numbers, rows).tofile(file)

    def batches(self) -> Iterator[tuple[SourceIngest, np.ndarray, pa.Table]]:
        """Yield the indexed rows of each source in batches, with the numbers [R, F] of their texts."""
        first = 0
        for source, indexed in zip(self.sources, self._rows, strict=True):
            width = len(source.fields)
            for where, table in source.batches([*source.fields, "entity"]):
                start, stop = np.searchsorted(indexed, (where.start, where.stop))
                numbers = first + np.arange((stop - start) * width).reshape(-1, width)
                if len(numbers):
                    yield source, numbers, table.take(indexed[start:stop] - np.uint32(where.start))
                first += numbers.size

    def is_test(self, texts: np.ndarray) -> np.ndarray:
        """Say which texts belong to test rows."""
        is_test: np.ndarray = self.texts["split"][texts] == TEST
        return is_test

    def are_kept(self, texts: np.ndarray) -> np.ndarray:
        """Say which texts belong to rows that no reason has rejected yet."""
        source, row = self.texts["source"][texts], self.texts["row"][texts]
        kept = np.zeros(len(texts), dtype=bool)
        for number in np.unique(source):
            own = source == number
            kept[own] = self.sources[number].row_status[row[own]] == KEPT
        return kept

    def similarity(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Estimate the Jaccard similarity of texts and others, pair by pair."""
        if len(left) == 0:
            return np.empty(0)
        stored = np.memmap(self._signatures, dtype=np.uint16, mode="r").reshape(-1, NUM_PERMUTATIONS)
        return similarity(stored, left, stored, right)

    def _add(self, source: SourceIngest, numbers: np.ndarray, rows: pa.Table) -> np.ndarray:
        """Enter rows, and return the signatures [R, F, P] of their texts."""
        kind = source.section.kind
        keys = np.array([text_keys(row, kind, source.fields) for row in rows.to_pylist()], dtype=np.uint64)
        self.equal.add(keys.reshape(-1), False, numbers[:, : keys.shape[1]].reshape(-1))
        entities = [xxhash.xxh3_64_intdigest(entity.encode()) for entity in rows["entity"].to_pylist()]
        self.entities.add(np.array(entities, dtype=np.uint64), False, numbers[:, 0])
        found = np.zeros((*numbers.shape, NUM_PERMUTATIONS), dtype=np.uint16)
        for column, field in enumerate(source.fields):
            texts, own_role, of_field = rows[field].to_pylist(), role_of(kind, field), numbers[:, column]
            found[:, column], long = signatures(texts, self._jaccard)
            for role in ROLES:
                if role == own_role:
                    entered = np.arange(len(texts))
                else:
                    entered = self._rows_in_other_role(role, own_role, texts, of_field)
                    others = [text_key(role, texts[row]) for row in entered.tolist()]
                    self.equal.add(np.array(others, dtype=np.uint64), True, of_field[entered])
                entered = entered[long[entered]]
                of_bands = bands(found[entered, column], role)
                self.similar.add(of_bands.reshape(-1), role != own_role, np.repeat(of_field[entered], NUM_BANDS))
        return found

    def _rows_in_other_role(self, role: str, own_role: str, texts: Sequence[str], numbers: np.ndarray) -> np.ndarray:
        """Choose the rows whose texts are entered under a role that is not their own."""
        eligible = self.is_test(numbers) | (own_role == SCORED and role == DOCUMENT)
        rows = [row for row in np.flatnonzero(eligible).tolist() if count_words(texts[row]) >= MIN_WORDS_OF_OTHER_ROLE]
        return np.array(rows, dtype=np.int64)


def _table(number: int, source: SourceIngest, rows: np.ndarray) -> np.ndarray:
    """Make the table of the texts of a source's rows."""
    width = len(source.fields)
    texts = np.empty(len(rows) * width, dtype=TEXT)
    texts["source"], texts["row"], texts["field"] = number, np.repeat(rows, width), np.tile(range(width), len(rows))
    texts["split"] = np.repeat(source.splits[rows], width)
    texts["language"] = np.repeat(source.languages[rows], width)
    return texts
