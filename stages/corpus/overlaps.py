"""Rejection of rows that repeat a test row, or that repeat or nearly repeat another row.

Repeats are found by shared keys in three ways: equal texts share the key of their words; near texts share a band of
their MinHash signatures, which are then compared; and a text that contains a test text shares its runs of words. Each
text is compared only with the first other text of the same key, so the work grows linearly.

Shapes: M pairs of a text and the partner it overlaps with, both as numbers of texts.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from stages.corpus.buckets import Buckets, first_in_group, group_numbers
from stages.corpus.containment import ContainedTexts
from stages.corpus.rejected_rows import KEPT, Reasons
from stages.corpus.roles import role_of
from stages.corpus.source_ingest import SourceIngest
from stages.corpus.tables import SPLITS
from stages.corpus.text_index import TextIndex
from stages.recipe.curate import EvaluationOverlap, NearDuplicates

# Ways in which a test row occurs in train or dev.
EXACT, NEAR, INSIDE = 1, 2, 4

Pairs = tuple[np.ndarray, np.ndarray]


def reject_test_overlaps(index: TextIndex, limits: EvaluationOverlap, reasons: Reasons) -> list[dict[str, Any]]:
    """Reject train and dev rows that a test row of any source repeats in any role, and report on each test set.

    Returns:
        For each source with test rows:
            source: its name.
            rows: number of its test rows.
            exact: number of them that occur in train or dev exactly.
            near: number of the others that occur there nearly.
            inside: number of the rest that occur inside a longer text there; None where that was not looked for.
            entities: number of test rows that share an entity with train or dev.
            share: share of test rows that occur there in any of the three ways.
    """
    ways = np.zeros(len(index.texts), dtype=np.uint8)
    for way, buckets, word in ((EXACT, index.equal, "in"), (NEAR, index.similar, "nearly in")):
        for texts, partners in _pairs_across_test(index, buckets):
            if way == NEAR:
                texts, partners = _similar(index, texts, partners, limits.jaccard)
            tested = index.is_test(texts)
            ways[texts[tested]] |= way
            why = f"{word} the test rows of {{source}}{{role}}"
            _reject(index, texts[~tested], partners[~tested], why, reasons)
    if limits.containment is not None:
        _reject_containing(index, limits.containment, ways, reasons)
    shares_entity = np.zeros(len(index.texts), dtype=bool)
    for texts, _ in _pairs_across_test(index, index.entities):
        shares_entity[texts] = True
    reports = [_report(index, number, ways, shares_entity) for number in range(len(index.sources))]
    if limits.containment is None:
        reports = [report | {"inside": None} for report in reports]
    return [report for report in reports if report["rows"]]


def reject_near_duplicates(index: TextIndex, limits: NearDuplicates, reasons: Reasons) -> None:
    """Reject rows that repeat, exactly or nearly, an earlier row of the same split and language.

    The earlier row is of the same source or of the same group of `limits.across`.
    """
    names = [source.section.name for source in index.sources]
    first = {name: group[0] for group in limits.across for name in group}
    groups = np.array([names.index(first.get(name, name)) for name in names])
    for buckets, word in ((index.equal, "duplicate"), (index.similar, "near duplicate")):
        for entries in buckets.shared():
            texts, partners = _repeats(index, entries, groups)
            if buckets is index.similar:
                texts, partners = _similar(index, texts, partners, limits.jaccard)
            _reject(index, texts, partners, f"{word} of a row of {{source}}", reasons)


def _pairs_across_test(index: TextIndex, buckets: Buckets) -> Iterator[Pairs]:
    """Pair untested texts with the first tested one of their key, and tested texts with the first untested one."""
    for entries in buckets.shared():
        texts, group = entries["text"].astype(np.int64), group_numbers(entries["key"])
        tested = index.is_test(texts)
        partner = np.where(tested, first_in_group(group, ~tested), first_in_group(group, tested))
        paired = partner >= 0
        yield texts[paired], texts[partner[paired]]


def _repeats(index: TextIndex, entries: np.ndarray, groups: np.ndarray) -> Pairs:
    """Pair kept texts, in their own role, with the first one of their key, group of sources, split and language."""
    entries = entries[entries["other_role"] == 0]
    entries = entries[index.are_kept(entries["text"])]
    texts = entries["text"].astype(np.int64)
    table = index.texts[texts]
    scope = (groups[table["source"]] * len(SPLITS) + table["split"]) * 2**16 + table["language"]
    order = np.lexsort((texts, scope, entries["key"]))
    texts, group = texts[order], group_numbers(entries["key"][order], scope[order])
    partners = texts[first_in_group(group, np.ones(len(texts), dtype=bool))]
    # A row's own two texts may be equal.
    left, right = index.texts[texts], index.texts[partners]
    other = (left["source"] != right["source"]) | (left["row"] != right["row"])
    return texts[other], partners[other]


def _similar(index: TextIndex, texts: np.ndarray, partners: np.ndarray, jaccard: float) -> Pairs:
    near = index.similarity(texts, partners) >= jaccard
    return texts[near], partners[near]


def _reject_containing(index: TextIndex, share: float, ways: np.ndarray, reasons: Reasons) -> None:
    """Reject train and dev rows with a text that contains a test row's text, in whatever role."""
    contained = ContainedTexts(share, _texts_of(index, tested=True))
    for texts, numbers in _texts_of(index, tested=False):
        positions, tested = contained.find(texts)
        ways[tested] |= INSIDE
        _reject(index, numbers[positions], tested, "contains a test row of {source}", reasons)


def _texts_of(index: TextIndex, *, tested: bool) -> Iterator[tuple[Sequence[str], np.ndarray]]:
    """Yield the texts of tested or of other rows with their numbers, a batch of rows and a field at a time."""
    for source, numbers, table in index.batches():
        rows = index.is_test(numbers[:, 0]) == tested
        for column, field in enumerate(source.fields):
            yield table[field].filter(rows).to_pylist(), numbers[rows, column]


def _reject(index: TextIndex, texts: np.ndarray, partners: np.ndarray, why: str, reasons: Reasons) -> None:
    pairs = zip(index.texts[texts].tolist(), index.texts[partners].tolist(), strict=True)
    for (number, row, field, *_), (other, _, other_field, *_) in pairs:
        source = index.sources[number]
        if source.row_status[row] == KEPT:
            reason = _reason(why, source, field, index.sources[other], other_field)
            source.row_status[row] = reasons.number(reason)


def _reason(why: str, source: SourceIngest, field: int, other: SourceIngest, other_field: int) -> str:
    """Say which text of a row was found where, and in which field if its role there is another."""
    name, other_name = source.fields[field], other.fields[other_field]
    same = role_of(source.section.kind, name) == role_of(other.section.kind, other_name)
    return f"{name}: {why}".format(source=other.section.name, role="" if same else f" as {other_name}")


def _report(index: TextIndex, number: int, ways: np.ndarray, shares_entity: np.ndarray) -> dict[str, Any]:
    source = index.sources[number]
    own = np.flatnonzero(index.texts["source"] == number)
    tested = own[index.is_test(own)].reshape(-1, len(source.fields))
    exact = (ways[tested] & EXACT).any(axis=1)
    near = ~exact & (ways[tested] & NEAR).any(axis=1)
    inside = ~exact & ~near & (ways[tested] & INSIDE).any(axis=1)
    return {
        "source": source.section.name,
        "rows": len(tested),
        "exact": int(exact.sum()),
        "near": int(near.sum()),
        "inside": int(inside.sum()),
        "entities": int(shares_entity[tested[:, 0]].sum()),
        "share": float((exact | near | inside).mean()) if len(tested) else 0.0,
    }
