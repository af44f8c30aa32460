"""Rows that nearly repeat each other, or repeat a row that models are tested on: found by shared keys, then rejected.

An item is a text of a kept row, in the order of sources, rows and fields. Items that share the key of a text are equal;
those that share a band of a MinHash signature are compared by their signatures. In every bucket each item meets one
other, the first, so that the work grows with the items and not with their square.

Rows repeat each other within a role: query, document, or a scored pair as a whole, under its first item. A test row is
given away in any role: its texts stand in the buckets of every role, halves of scored pairs in those of documents. Such
entries are numbered from I on, and are left out where repetitions are looked for.

Shapes: I items, R kept rows of a source, P permutations.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from stages.corpus.buckets import Buckets, first_of, numbered
from stages.corpus.containment import Contained
from stages.corpus.minhash import NUM_PERMUTATIONS, bands, signatures, similarity, text_key
from stages.corpus.source_ingest import DOCUMENT, KEPT, ROLES, SCORED, Intake, Reasons, role_of, text_keys
from stages.corpus.tables import SPLITS
from stages.corpus.text_length import count_words

TRAIN, DEV, TEST = range(len(SPLITS))
# Pairs whose signatures are compared at once.
COMPARED = 2**16
# A shorter text is a name or a common phrase: where it stands in another role, it gives no test row away.
TELLING_WORDS = 5
_EXACT, _NEAR, _INSIDE = 1, 2, 4


@dataclass(frozen=True)
class Similarity:
    """From which Jaccard similarity of word shingles texts are near duplicates, and a test row is given away; and from
    which share of a test text inside another, None where that is not looked at.
    """

    duplicates: float
    evaluation: float
    containment: float | None = None


class Overlaps:
    """The texts of all sources by key, and what of them overlaps.

    Args:
        across: groups of sources that may not repeat one another; the first of a group keeps a row.
        folder: a new one, for what is kept on disk meanwhile.
    """

    def __init__(
        self, intakes: Sequence[Intake], across: Sequence[Sequence[str]], similar: Similarity, folder: Path
    ) -> None:
        self._intakes, self._similar = intakes, similar
        self._rows = [intake.kept_rows() for intake in intakes]
        self._widths = np.array([len(one.fields) for one in intakes])
        sizes = [len(rows) * width for rows, width in zip(self._rows, self._widths, strict=True)]
        self._starts = np.concatenate(([0], np.cumsum(sizes)))
        kept = list(zip(intakes, self._rows, self._widths, strict=True))
        self._splits = np.concatenate([np.repeat(one.splits[rows], width) for one, rows, width in kept])
        self._languages = np.concatenate([np.repeat(one.languages[rows], width) for one, rows, width in kept])
        scopes = {name: group[0] for group in across for name in group}
        names = [one.origin["source"] for one in intakes]
        self._scopes = np.array([names.index(scopes.get(name, name)) for name in names])
        self._equal, self._banded, self._entities = (Buckets(folder / name) for name in ("equal", "near", "entities"))
        self._signatures = folder / "signatures.bin"
        self._read()

    def reject_given_away(self, reasons: Reasons) -> list[dict[str, Any]]:
        """Reject train and dev rows that a test row of any source repeats in any role; what was found of each test set.

        Returns:
            {source, rows, exact, near, inside, entities, share}: its test rows; how many of them stand in train or dev
            exactly, else nearly, else inside a longer text (None where that was not looked at); how many share an
            entity with train or dev of another source; the share of those that stand there in any of the three ways.
        """
        hits = np.zeros(self._starts[-1], dtype=np.uint8)
        for grade, word in ((_EXACT, "in"), (_NEAR, "nearly in")):
            for items, partners in self._meetings(grade, self._tested_and_not, self._similar.evaluation):
                tested = self._splits[items] == TEST
                hits[items[tested]] |= grade
                self._reject(items[~tested], partners[~tested], f"{word} the test rows of {{source}}{{role}}", reasons)
        if self._similar.containment is not None:
            self._reject_containing(self._similar.containment, hits, reasons)
        sharing = self._sharing_entities()
        return [
            report for number in range(len(self._intakes)) if (report := self._report(number, hits, sharing))["rows"]
        ]

    def _reject_containing(self, share: float, hits: np.ndarray, reasons: Reasons) -> None:
        """The same of rows with a text that contains a test row's, whichever of its texts that is."""
        contained = Contained(share)
        for texts, items in self._texts(tested=True):
            contained.add(texts, items)
        contained.close()
        for texts, items in self._texts(tested=False):
            places, tested = contained.found(texts)
            hits[tested] |= _INSIDE
            self._reject(items[places], tested, "contains a test row of {source}", reasons)

    def _texts(self, tested: bool) -> Iterator[tuple[list[str], np.ndarray]]:
        """Texts and items of the rows that are tested on, or of the others."""
        for number, intake in enumerate(self._intakes):
            width, start = int(self._widths[number]), int(self._starts[number])
            for where, table in intake.batches(intake.fields):
                ranks = np.arange(*np.searchsorted(self._rows[number], (where.start, where.stop)))
                rows = self._rows[number][ranks]
                chosen = (intake.splits[rows] == TEST) == tested
                part = table.take(rows[chosen] - where.start)
                for column, name in enumerate(part.column_names):
                    yield part[name].to_pylist(), start + ranks[chosen] * width + column

    def reject_duplicates(self, reasons: Reasons) -> None:
        """Reject rows that nearly repeat an earlier one of their source and split, or equal one of their group."""
        for grade, word in ((_EXACT, "duplicate"), (_NEAR, "near duplicate")):
            for items, partners in self._meetings(grade, self._same_place, self._similar.duplicates):
                self._reject(items, partners, f"{word} of a row of {{source}}", reasons)

    def _read(self) -> None:
        with self._signatures.open("wb") as file:
            for number, intake in enumerate(self._intakes):
                start = int(self._starts[number])
                for _, table in _kept(intake):
                    start = self._add(number, table.to_pylist(), start, file)

    def _add(self, number: int, rows: list[dict[str, Any]], start: int, file: Any) -> int:
        intake, width = self._intakes[number], int(self._widths[number])
        kind = intake.origin["kind"]
        items = np.arange(start, start + len(rows) * width).reshape(-1, width)
        keys = np.array([text_keys(row, kind, intake.fields) for row in rows], dtype=np.uint64)
        self._equal.add(keys.reshape(-1), items[:, : intake.num_keys].reshape(-1))
        names = [xxhash.xxh3_64_intdigest(row["entity"].encode()) for row in rows]
        self._entities.add(np.array(names, dtype=np.uint64), items[:, 0])
        found = np.zeros((len(rows), width, NUM_PERMUTATIONS), dtype=np.uint16)
        for column, field in enumerate(intake.fields):
            texts = [row[field] for row in rows]
            found[:, column], long = signatures(texts, min(self._similar.duplicates, self._similar.evaluation))
            role = role_of(kind, field)
            if role in ROLES:
                self._band(found[long, column], items[long, column], role)
            self._add_elsewhere(texts, found[:, column], long, items[:, column], role)
        found.tofile(file)
        return start + items.size

    def _add_elsewhere(
        self, texts: list[str], found: np.ndarray, long: np.ndarray, items: np.ndarray, own: str
    ) -> None:
        """Enter tested texts under the roles that are not their own, and halves of all scored pairs as documents."""
        tested = self._splits[items] == TEST
        sought = np.flatnonzero(tested | (own == SCORED))
        telling = sought[[count_words(texts[place]) >= TELLING_WORDS for place in sought.tolist()]]
        for role in ROLES:
            if role != own:
                places = telling if role == DOCUMENT else telling[tested[telling]]
                keys = [text_key(role, texts[place]) for place in places.tolist()]
                self._equal.add(np.array(keys, dtype=np.uint64), items[places] + self._starts[-1])
                near = places[long[places]]
                self._band(found[near], items[near] + self._starts[-1], role)

    def _band(self, found: np.ndarray, items: np.ndarray, role: str) -> None:
        banded = bands(found, role)
        self._banded.add(banded.reshape(-1), np.repeat(items, banded.shape[1]))

    def _meetings(self, grade: int, linked: Any, jaccard: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Items and the item that each overlaps with, a part of the keys at a time."""
        for entries in (self._equal if grade == _EXACT else self._banded).shared():
            items, partners = linked(entries)
            if grade == _NEAR:
                near = self._verified(items, partners, jaccard)
                items, partners = items[near], partners[near]
            yield items, partners

    def _verified(self, items: np.ndarray, partners: np.ndarray, jaccard: float) -> np.ndarray:
        if len(items) == 0:
            return np.empty(0, dtype=bool)
        stored = np.memmap(self._signatures, dtype=np.uint16, mode="r").reshape(-1, NUM_PERMUTATIONS)
        starts = range(0, len(items), COMPARED)
        pairs = ((items[start : start + COMPARED], partners[start : start + COMPARED]) for start in starts)
        return np.concatenate([similarity(stored[left], stored[right]) >= jaccard for left, right in pairs])

    def _tested_and_not(self, entries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Untested items with the first tested one of their bucket, tested ones with the first untested one."""
        items = entries["item"].astype(np.int64) % self._starts[-1]
        bucket = numbered(entries["key"])
        tested = self._splits[items] == TEST
        partner = np.where(tested, first_of(bucket, ~tested)[bucket], first_of(bucket, tested)[bucket])
        met = partner >= 0
        return items[met], items[partner[met]]

    def _same_place(self, entries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Items that are still kept, in their own role, with the first one of their bucket, scope and split."""
        entries = entries[entries["item"] < self._starts[-1]]
        entries = entries[self._still_kept(entries["item"].astype(np.int64))]
        items = entries["item"].astype(np.int64)
        scope = self._scopes[self._source_of(items)] * len(SPLITS) + self._splits[items]
        scope = scope * 2**16 + self._languages[items]
        order = np.lexsort((items, scope, entries["key"]))
        items, scope, key = items[order], scope[order], entries["key"][order]
        bucket = numbered(key, scope)
        partner = items[first_of(bucket, np.ones(len(items), dtype=bool))[bucket]]
        # A row's own two texts are no repetition, and equal texts of one source and role have been dealt with.
        later = self._row_of(partner) != self._row_of(items)
        return items[later], partner[later]

    def _reject(self, items: np.ndarray, partners: np.ndarray, why: str, reasons: Reasons) -> None:
        source, column = self._source_of(items), self._column_of(items)
        rows = (items - self._starts[source]) // self._widths[source]
        parts = (source, rows, column, self._source_of(partners), self._column_of(partners))
        for number, row, own, other, its in zip(*(part.tolist() for part in parts), strict=True):
            intake, place = self._intakes[number], self._rows[number][row]
            if intake.fates[place] == KEPT:
                intake.fates[place] = reasons.number(_reason(why, intake, own, self._intakes[other], its))

    def _report(self, number: int, hits: np.ndarray, sharing: np.ndarray) -> dict[str, Any]:
        width, own = self._widths[number], slice(self._starts[number], self._starts[number + 1])
        tested = self._splits[own][::width] == TEST
        hit = hits[own].reshape(-1, width)[tested]
        exact = (hit & _EXACT).any(axis=1)
        near = ~exact & (hit & _NEAR).any(axis=1)
        inside = ~exact & ~near & (hit & _INSIDE).any(axis=1)
        return {
            "source": self._intakes[number].origin["source"],
            "rows": int(tested.sum()),
            "exact": int(exact.sum()),
            "near": int(near.sum()),
            "inside": None if self._similar.containment is None else int(inside.sum()),
            "entities": int(sharing[own][::width][tested].sum()),
            "share": float((exact | near | inside).mean()) if tested.any() else 0.0,
        }

    def _sharing_entities(self) -> np.ndarray:
        """Which items' rows [I] are tested on while train or dev of another source has their entity."""
        sharing = np.zeros(self._starts[-1], dtype=bool)
        for entries in self._entities.shared():
            items, _ = self._tested_and_not(entries)
            sharing[items] = self._splits[items] == TEST
        return sharing

    def _still_kept(self, items: np.ndarray) -> np.ndarray:
        source = self._source_of(items)
        kept = np.zeros(len(items), dtype=bool)
        for number in np.unique(source):
            own = source == number
            position = (items[own] - self._starts[number]) // self._widths[number]
            kept[own] = self._intakes[number].fates[self._rows[number][position]] == KEPT
        return kept

    def _source_of(self, items: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.searchsorted(self._starts, items, side="right") - 1
        return found

    def _row_of(self, items: np.ndarray) -> np.ndarray:
        """A number that items of one row have in common."""
        return items - self._column_of(items)

    def _column_of(self, items: np.ndarray) -> np.ndarray:
        source = self._source_of(items)
        found: np.ndarray = (items - self._starts[source]) % self._widths[source]
        return found


def _reason(why: str, intake: Intake, column: int, other: Intake, its: int) -> str:
    """Which text of a row was found where, and in which field, if its role there is another."""
    field, found = intake.fields[column], other.fields[its]
    same = role_of(intake.origin["kind"], field) == role_of(other.origin["kind"], found)
    return f"{field}: {why}".format(source=other.origin["source"], role="" if same else f" as {found}")


def _kept(intake: Intake) -> Iterator[tuple[slice, Any]]:
    for where, table in intake.batches([*intake.fields, "entity"]):
        kept = table.filter(intake.fates[where] == KEPT)
        if len(kept):
            yield where, kept
