"""Too few rows, or rows too much alike, are said in one message before anything long begins."""

from pathlib import Path
from typing import Any

import pytest

from stages.corpus.feasibility import long_shortages, shortages
from stages.corpus.tables import SCHEMAS, SPLITS, write_table
from stages.recipe.evaluate import EvaluateLong, EvaluateSources
from stages.recipe.fields import Kind
from tests.corpus.builders import Ingested, pair, section, source

NONE: dict[str, Any] = {name: [] for name in ("retrieval", "unseen", "text-matching", "clustering", "classification")}
SHARES = {"dev": 0.2, "test": 0.2}
FEW = "; its 2 rows are of 2 entities, each of which lies in one split as a whole: name a column of more entities, or "
FEW += "leave the option `entity` out, or set splits.test to 0, which holds nothing out and measures nothing"
OTHERWISE = "; give the source more rows, or set splits.test to 0, which holds nothing out and measures nothing"


def row(number: int, **values: Any) -> dict[str, Any]:
    return {"id": f"r{number}", "entity": f"e{number}", "source": "own", **values}


def found(
    folder: Path, kind: Kind, task: str | None, rows: dict[str, list[dict[str, Any]]], shares: dict[str, float] = SHARES
) -> list[str]:
    for split in SPLITS:
        write_table(folder / kind / f"{split}.parquet", rows.get(split, []), SCHEMAS[kind])
    measured = EvaluateSources.model_validate(NONE | ({task: ["own"]} if task else {}))
    return shortages([section(kind, name="own", splits=shares)], measured, folder)


def test_every_shortage_of_a_source_is_told_at_once(tmp_path: Path) -> None:
    faults = found(tmp_path, "pairs", "retrieval", {"train": [row(1)], "test": [row(2)]})
    assert faults == [
        "own: got 1 train row, expected at least 2; splits are dev 0.2 and test 0.2: lower these, or give the source "
        "more rows",
        f"own: got 1 test row, expected at least 2, since a single document is always found{FEW}",
    ]
    trained = [row(number) for number in range(2, 9)]
    faults = found(tmp_path, "pairs", "retrieval", {"train": trained, "test": [row(1)]})
    assert faults == [f"own: got 1 test row, expected at least 2, since a single document is always found{OTHERWISE}"]


def test_nothing_is_asked_of_test_rows_that_are_not_held_out_or_not_measured(tmp_path: Path) -> None:
    trained = {"train": [row(1), row(2)]}
    assert found(tmp_path, "pairs", "retrieval", trained, {"dev": 0.2, "test": 0.0}) == []
    assert found(tmp_path, "pairs", None, trained) == []


def test_test_rows_of_one_entity_have_no_interval(tmp_path: Path) -> None:
    rows = {"train": [row(1), row(2)], "test": [row(3, entity="e"), row(4, entity="e")]}
    assert "got test rows of one entity" in found(tmp_path, "pairs", "unseen", rows)[0]


@pytest.mark.parametrize(
    ("task", "split", "says"),
    [
        (None, "train", "train rows of one label"),
        ("clustering", "test", "got 2 test rows with 1 label"),
        ("classification", "dev", "got 2 dev rows with 1 label"),
        ("classification", "test", "got 2 test rows with 1 label"),
    ],
)
def test_labels_of_one_class_are_told_by_split(tmp_path: Path, task: str | None, split: str, says: str) -> None:
    two = [row(1, label="a"), row(2, label="b")]
    rows = dict.fromkeys(SPLITS, two)
    assert found(tmp_path, "labelled", task, rows) == []
    faults = found(tmp_path, "labelled", task, rows | {split: [row(1, label="a"), row(2, label="a")]})
    assert len(faults) == 1
    assert says in faults[0]


def test_scored_pairs_must_have_an_order(tmp_path: Path) -> None:
    rows = {"train": [row(1, score=0.1), row(2, score=0.2)], "test": [row(n, score=0.5) for n in range(4)]}
    assert "got 4 test rows with 1 different score" in found(tmp_path, "scored", "text-matching", rows)[0]


def test_train_pairs_of_one_score_teach_no_order(tmp_path: Path) -> None:
    rows = {"train": [row(n, score=0.5) for n in range(4)], "test": [row(n, score=n / 4) for n in range(4)]}
    assert "got train rows of one score" in found(tmp_path, "scored", "text-matching", rows)[0]


def test_long_documents_need_test_rows_that_nothing_was_trained_on(tmp_path: Path) -> None:
    long = EvaluateLong(haystacks="own", articles="own", lengths=(128,), num_documents=4, rope_thetas=())
    for kind, trained in (("pairs", [row(1)]), ("documents", [])):
        write_table(tmp_path / kind / "train.parquet", trained, SCHEMAS[kind])
        write_table(tmp_path / kind / "test.parquet", [row(n) for n in range(1, 5)], SCHEMAS[kind])
    (fault,) = long_shortages(long, tmp_path)
    assert fault == (
        "own: got 3 test rows of entities that no pairs are trained on, expected at least 4 for "
        "evaluate.long.haystacks; give the source more rows or a larger splits.test, or set the key to null"
    )
    assert long_shortages(long.model_copy(update={"haystacks": None, "articles": None}), tmp_path) == []


def test_a_small_source_has_rows_in_every_split_that_it_declares(tmp_path: Path) -> None:
    for seed in range(30):
        records = [pair(f"query {n}", f"document {n}", f"e{n}") for n in range(10)]
        splits = Ingested(source(records, seed=seed, splits=SHARES), tmp_path / str(seed)).ingest.splits.tolist()
        assert splits.count(0) >= 2
        assert splits.count(1) >= 1
        assert splits.count(2) >= 2


def test_an_entity_is_moved_as_a_whole_and_a_source_of_two_entities_is_left_as_it_is(tmp_path: Path) -> None:
    records = [pair(f"query {n}", f"document {n}", f"e{n % 4}") for n in range(12)]
    splits = Ingested(source(records, splits={"dev": 0.0, "test": 0.001}), tmp_path / "four").ingest.splits
    assert sorted(splits.tolist()) == [0] * 6 + [2] * 6
    records = [pair(f"query {n}", f"document {n}", f"e{n % 2}") for n in range(6)]
    splits = Ingested(source(records, splits={"dev": 0.0, "test": 0.001}), tmp_path / "two").ingest.splits
    assert set(splits.tolist()) == {0}
