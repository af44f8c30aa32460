"""The negatives that sources name, as the adapters read them beside their pairs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.adapt import _rows_of_negatives
from stages.corpus.tables import SCHEMAS, write_table
from stages.evaluation.tasks import with_test_rows
from stages.modeling.encoder import Encoder, EncoderSettings, load_encoder
from stages.objectives.training_texts import TrainingTexts
from stages.recipe.evaluate import EvaluateSources
from stages.recipe.paths import CURATED
from stages.recipe.training import Draw
from stages.training.batches import MixturePart
from stages.training.dev import clustering_on_dev, retrieval_on_dev, similarity_on_dev
from stages.training.mixture import MixturePairs, with_given_negatives
from tests import sections

NEGATIVES = {0: ["ba ce", "document 1"], 1: ["ba ce", "document 1"], 2: []}


@pytest.fixture
def student(backbones: dict[str, Path]) -> Encoder:
    return load_encoder(str(backbones["eurobert"]), EncoderSettings("last", {"query": "", "document": ""}, 24))


class OneVector:
    """A teacher of one vector, which notes what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def of(self, side: str, texts: list[str], sources: list[str]) -> np.ndarray:
        assert side == "document"
        assert set(sources) == {"own"}
        self.asked += texts
        return np.ones((len(texts), 4), dtype=np.float16)


def test_negatives_stand_behind_the_documents_and_texts_of_pairs_are_not_repeated(
    student: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [
        {"id": f"{n}", "query": f"query {n}", "document": f"document {n}", "negatives": texts, "source": "own"}
        for n, texts in NEGATIVES.items()
    ]
    write_table(CURATED / "pairs" / "train.parquet", rows, SCHEMAS["pairs"])
    texts = TrainingTexts.of(student, [row["document"] for row in rows], "document", 24, np.ones((3, 4), np.float16))
    pairs = MixturePairs(texts, texts, [*"012"], ["en"] * 3, [MixturePart("own", np.arange(3), 2, 1.0)])
    draw = Draw(source="own", weight=1.0, max_tokens=24, batch_size=2)
    settings = sections.retrieval(mixture=[draw], num_negatives=2)
    teacher: Any = OneVector()
    documents, given = with_given_negatives(pairs, settings, student, teacher)
    assert given == {0: [3, 1], 1: [3]}, "document 1 is no negative of its own pair"
    assert len(documents) == 4
    assert teacher.asked == ["ba ce"]
    assert documents.teacher is not None
    assert len(documents.teacher) == 4


def test_a_negative_of_text_matching_is_the_right_text_that_it_equals() -> None:
    right = ["scored", "b", "c"]
    assert _rows_of_negatives({1: "c", 2: "new"}, right, 1) == (["new"], {1: 2, 2: 3})
    assert _rows_of_negatives({1: "scored"}, right, 1) == (["scored"], {1: 3}), "a scored pair's text is no other's"
    assert _rows_of_negatives({}, right, 1) == ([], {})


def test_sources_without_dev_rows_have_no_dev_scores_and_those_without_test_rows_no_figures(
    student: Encoder, tmp_path: Path
) -> None:
    for kind in SCHEMAS:
        for split in ("dev", "test"):
            write_table(tmp_path / kind / f"{split}.parquet", [], SCHEMAS[kind])
    assert retrieval_on_dev(student, tmp_path, ["own"]) == {}
    row = {"source": "talks", "text": "ba ce", "translation": "ce ba"}
    write_table(tmp_path / "parallel/dev.parquet", [row], SCHEMAS["parallel"])
    assert retrieval_on_dev(student, tmp_path, ["own", "talks"]) == {"ndcg_at_10": 1.0}, "a translation finds its text"
    assert similarity_on_dev(student, tmp_path, ["own"]) == {}
    assert clustering_on_dev(student, tmp_path, ["own"], 1) == {}
    write_table(tmp_path / "pairs/test.parquet", [{"id": "1", "source": "held"}], SCHEMAS["pairs"])
    named = {"retrieval": ["held", "own"], "unseen": [], "text-matching": [], "clustering": [], "classification": []}
    measured, absent = with_test_rows(EvaluateSources.model_validate(named), tmp_path)
    assert measured.retrieval == ("held",)
    assert absent == ["own"]
