"""Whether the curated rows are enough to train on and to measure with: said here at once, before any long stage."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from stages.corpus.tables import SPLITS, read_table
from stages.recipe.curate import Source
from stages.recipe.evaluate import EvaluateLong, EvaluateSources

# Fewest scored pairs whose order says anything.
MIN_SCORED = 3
# Fewer entities than this cannot be split into three parts with two of them in test.
MIN_ENTITIES = 5
OTHERWISE = "or set splits.test to 0, which holds nothing out and measures nothing"


def shortages(sources: Sequence[Source], measured: EvaluateSources, curated: Path) -> list[str]:
    """List where rows are too few or too alike, one line for each fault; empty where there are enough.

    A source whose `splits.test` is 0 is not measured, so nothing is asked of its test rows.
    """
    tasks = measured.model_dump(by_alias=True)
    faults = []
    for source in sources:
        rows = _Rows(curated, source)
        if not any(len(rows.of(split)) for split in SPLITS):
            continue  # refused already, with the reasons for which its rows were rejected
        faults += [f"{source.name}: {fault}" for fault in _unfit_to_train(rows)]
        if source.splits.test:
            keys = [task for task, names in tasks.items() if source.name in names]
            found = {fault: None for key in keys for fault in _MEASURED[key](rows)}
            faults += [f"{source.name}: {fault}; {_remedy(rows)}" for fault in found]
    return faults


def long_shortages(long: EvaluateLong, curated: Path) -> list[str]:
    """List what the evaluation on long documents lacks: test rows of entities that no pairs are trained on."""
    wanted = {
        "haystacks": ("documents", long.haystacks, max(2, long.num_documents)),
        "articles": ("pairs", long.articles, 2),
    }
    trained = set(read_table(curated / "pairs" / "train.parquet")["entity"].to_pylist())
    faults = []
    for key, (kind, source, least) in wanted.items():
        if source is None:
            continue
        entities = read_table(curated / kind / "test.parquet", [source])["entity"].to_pylist()
        if (number := sum(entity not in trained for entity in entities)) < least:
            faults.append(
                f"{source}: got {number} test rows of entities that no pairs are trained on, expected at least {least} "
                f"for evaluate.long.{key}; give the source more rows or a larger splits.test, or set the key to null"
            )
    return faults


class _Rows:
    """The curated rows of a source, read by split when they are asked for."""

    def __init__(self, curated: Path, source: Source) -> None:
        self.source, self._folder = source, curated / source.kind

    def of(self, split: str) -> pa.Table:
        return read_table(self._folder / f"{split}.parquet", [self.source.name])

    def distinct(self, split: str, column: str) -> int:
        return len(self.of(split)[column].unique())


def _remedy(rows: _Rows) -> str:
    entities = {entity for split in SPLITS for entity in rows.of(split)["entity"].unique().to_pylist()}
    if len(entities) >= MIN_ENTITIES:
        return f"give the source more rows, {OTHERWISE}"
    number = sum(len(rows.of(split)) for split in SPLITS)
    return (
        f"its {number} rows are of {_counted(len(entities), 'entity', 'entities')}, each of which lies in one split as "
        f"a whole: name a column of more entities, or leave the option `entity` out, {OTHERWISE}"
    )


def _unfit_to_train(rows: _Rows) -> list[str]:
    source = rows.source
    if source.kind == "documents" or source.splits.dev + source.splits.test >= 1:
        return []
    shares = f"splits are dev {source.splits.dev:g} and test {source.splits.test:g}"
    if (number := len(rows.of("train"))) < 2:
        return [
            f"got {_counted(number, 'train row')}, expected at least 2; {shares}: lower these, or give the source more "
            "rows"
        ]
    if source.kind == "labelled" and rows.distinct("train", "label") < 2:
        return ["got train rows of one label, expected at least 2 labels; give the source rows of another label"]
    if source.kind == "scored" and rows.distinct("train", "score") < 2:
        return ["got train rows of one score, expected at least 2 scores; give the source rows of another score"]
    return []


def _ranked(rows: _Rows) -> list[str]:
    if (number := len(rows.of("test"))) < 2:
        return [f"got {_counted(number, 'test row')}, expected at least 2, since a single document is always found"]
    return _one_entity(rows)


def _scored(rows: _Rows) -> list[str]:
    number, scores = len(rows.of("test")), rows.distinct("test", "score")
    if number < MIN_SCORED or scores < 2:
        return [
            f"got {number} test rows with {_counted(scores, 'different score')}, expected at least {MIN_SCORED} rows "
            "and 2 scores"
        ]
    return []


def _clustered(rows: _Rows) -> list[str]:
    if (labels := rows.distinct("test", "label")) < 2:
        return [f"got {len(rows.of('test'))} test rows with {_counted(labels, 'label')}, expected at least 2 labels"]
    return _one_entity(rows)


def _classified(rows: _Rows) -> list[str]:
    if (labels := rows.distinct("dev", "label")) < 2:
        number = len(rows.of("dev"))
        return [
            f"got {number} dev rows with {_counted(labels, 'label')}, expected at least 2 labels, on which a "
            "classifier is fitted"
        ]
    return _clustered(rows)


def _one_entity(rows: _Rows) -> list[str]:
    if rows.distinct("test", "entity") < 2:
        return ["got test rows of one entity, expected at least 2, without which no interval can be computed"]
    return []


def _counted(number: int, noun: str, plural: str = "") -> str:
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


_MEASURED: Mapping[str, Callable[[_Rows], list[str]]] = {
    "retrieval": _ranked,
    "unseen": _ranked,
    "text-matching": _scored,
    "clustering": _clustered,
    "classification": _classified,
}
