"""Texts of benchmarks in what was trained on: planted, and found or left as promised."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stages.corpus.tables import SCHEMAS, write_table
from stages.evaluation.contamination import Contamination, trained_texts
from stages.recipe.fields import TEXT_FIELDS

JACCARD = 0.8
ORIGIN = {"entity": "", "source": "planted", "language": "en", "license": "MIT"}


def text(seed: int, words: int = 40) -> str:
    return " ".join(f"w{number}" for number in np.random.default_rng(seed).integers(0, 10_000, words))


def nearly(whole: str) -> str:
    """Another last word: 37 of 39 shingles of three words are the same."""
    return whole.rsplit(" ", 1)[0] + " different"


def shares(tested: list[str], trained: list[str]) -> dict[str, float]:
    contamination = Contamination(JACCARD)
    contamination.add("task", tested)
    return contamination.shares([trained])


def curated(folder: Path, planted: dict[tuple[str, str], list[str]]) -> Path:
    """All kinds and splits, each with a row of its own, and the planted texts in the columns of their kind in turn."""
    seeds = itertools.count(1000)
    for kind, split in itertools.product(TEXT_FIELDS, ("train", "dev", "test")):
        fields = TEXT_FIELDS[kind]
        texts = [text(next(seeds)) for _ in fields] + planted.get((kind, split), [])
        by_row = [texts[first : first + len(fields)] for first in range(0, len(texts), len(fields))]
        rows = [dict(zip(fields, of_row, strict=True)) for of_row in by_row]
        extra = {"scored": {"score": 0.5}, "labelled": {"label": "malt"}}.get(kind, {})
        whole = [{"id": str(number), **ORIGIN, **extra, **row} for number, row in enumerate(rows)]
        write_table(folder / kind / f"{split}.parquet", whole, SCHEMAS[kind])
    return folder


@pytest.mark.parametrize(
    ("trained", "share"),
    [
        (text(1), 1.0),
        (text(1).upper(), 1.0),
        (nearly(text(1)), 1.0),
        (text(2), 0.0),
        (text(1)[: len(text(1)) // 2], 0.0),
    ],
    ids=["exact", "in capitals", "near", "another", "half of it"],
)
def test_a_text_is_found_where_it_stands_exactly_or_nearly(trained: str, share: float) -> None:
    assert shares([text(1)], [text(3), trained]) == {"task": share}


def test_a_share_is_of_distinct_texts_that_can_tell() -> None:
    tested = ["bird of prey", "a  bird of\tprey falls", "A bird of prey falls", text(1), text(2), text(3)]
    assert shares(tested, ["bird of prey", "a bird of prey falls", nearly(text(1))]) == {"task": 0.5}
    assert shares(["bird of prey", ""], ["bird of prey", ""]) == {}, "there is nothing that could tell"


def test_each_of_several_benchmarks_has_its_share_of_common_texts() -> None:
    contamination = Contamination(JACCARD)
    contamination.add("first", [text(1), text(2)])
    contamination.add("second", [text(2), text(3), text(4), text(5)])
    contamination.add("third", [text(6)])
    assert contamination.shares([[text(9), nearly(text(2))], [text(3)]]) == {"first": 0.5, "second": 0.5, "third": 0.0}


def test_one_planted_text_is_found_among_many() -> None:
    tested, others = [text(seed) for seed in range(3000)], [text(seed) for seed in range(5000, 8000)]
    planted = [*tested[:30], *map(nearly, tested[30:60])]
    assert shares(tested, others) == {"task": 0.0}
    assert shares(tested, [*others, *planted]) == {"task": pytest.approx(60 / 3000)}


def test_train_and_dev_of_every_kind_are_read_in_every_role(tmp_path: Path) -> None:
    planted = {
        ("pairs", "train"): [text(1), text(2)],
        ("pairs", "dev"): [text(3), text(4)],
        ("scored", "train"): [text(5), text(6)],
        ("labelled", "dev"): [text(7)],
        ("labelled", "test"): [text(8)],
        ("parallel", "test"): [text(9), text(10)],
        ("documents", "train"): [text(11)],
        ("parallel", "train"): [text(12), text(13)],
    }
    folder = curated(tmp_path, planted)
    found = {}
    for seed in range(1, 14):
        contamination = Contamination(JACCARD)
        contamination.add("task", [text(seed)])
        found[seed] = contamination.shares(trained_texts(folder))["task"]
    assert found == {seed: float(seed not in (8, 9, 10)) for seed in range(1, 14)}


def test_without_benchmarks_nothing_is_read() -> None:
    def unread() -> Iterator[list[str]]:
        raise AssertionError
        yield []

    assert Contamination(JACCARD).shares(unread()) == {}
