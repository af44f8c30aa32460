"""The pairs that retrieval is measured on, and figures by who asked."""

from pathlib import Path

import numpy as np
import pytest

from stages.corpus.tables import SCHEMAS, write_table
from stages.evaluation.measured_pairs import figures_by_origin, measured_pairs
from stages.metrics.row_outcomes import Mean
from stages.mining.consistency import INCONSISTENT
from stages.recipe.paths import CURATED, INCONSISTENT_PAIRS


@pytest.fixture
def curated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four test pairs of a source, of which mine left the third out."""
    monkeypatch.chdir(tmp_path)
    origins = ["given", "model", "model", "given"]
    rows = [{"id": f"faq/{at}", "source": "faq", "origin": origin} for at, origin in enumerate(origins)]
    write_table(CURATED / "pairs" / "test.parquet", rows, SCHEMAS["pairs"])
    write_table(INCONSISTENT_PAIRS, [{"id": "faq/2", "source": "faq"}, {"id": "faq/9", "source": "x"}], INCONSISTENT)
    return CURATED


def test_a_models_question_that_mine_left_out_is_not_measured(curated: Path) -> None:
    assert measured_pairs(curated, "faq")["id"].to_pylist() == ["faq/0", "faq/1", "faq/3"]


def test_a_source_of_nonsense_alone_is_refused(curated: Path) -> None:
    write_table(INCONSISTENT_PAIRS, [{"id": f"faq/{at}", "source": "faq"} for at in range(4)], INCONSISTENT)
    with pytest.raises(ValueError, match="mine left out all of its 4 test questions"):
        measured_pairs(curated, "faq")


def test_figures_are_means_over_the_questions_of_each_origin(curated: Path) -> None:
    outcomes = {"teacher": {"faq": Mean(np.array([1.0, 0.5, 0.0]))}, "bm25": {"faq": Mean(np.array([0.2, 0.4, 0.6]))}}
    given, model = figures_by_origin(outcomes, curated)["faq"].values()
    assert given == {"queries": 2, "teacher": 0.5, "bm25": pytest.approx(0.4)}
    assert model == {"queries": 1, "teacher": 0.5, "bm25": 0.4}
