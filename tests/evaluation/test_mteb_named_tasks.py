"""Which texts a task of mteb tests with, of each kind; read once, from the folder that was named, for all models."""

from pathlib import Path
from typing import Any

import mteb
import pytest
from datasets import Dataset, DatasetDict
from mteb.abstasks import AbsTask

from stages.evaluation.contamination import Contamination
from stages.evaluation.mteb_named_tasks import named_scores, named_tasks, task_texts
from stages.evaluation.mteb_scores import ROUTED, MtebModel
from tests.evaluation.test_mteb_scores import RandomModels, texts, write_search


def holding(name: str, rows: dict[str, list[Any]], split: str = "test", subset: str | None = None) -> AbsTask:
    """One of mteb's tasks with rows of ours, and a train split that it does not test with."""
    task = mteb.get_task(name)
    splits = DatasetDict({split: Dataset.from_dict(rows), "train": Dataset.from_dict({"text": ["trained on"]})})
    task.dataset = splits if subset is None else {subset: splits}
    task.data_loaded = True
    return task


def test_of_pairs_both_texts_are_held() -> None:
    task = holding("STS12", {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "score": [1.0, 2.0]})
    assert sorted(task_texts(task)) == ["a", "b", "c", "d"]


def test_of_classes_and_clusters_all_but_the_labels() -> None:
    classified = holding("Banking77Classification", {"text": ["a", "b"], "label": ["x", "y"]})
    assert list(task_texts(classified)) == ["a", "b"]
    sets = {"sentences": [["a", "b"], ["c"]], "labels": [["x", "y"], ["z"]]}
    assert list(task_texts(holding("TwentyNewsgroupsClustering", sets))) == ["a", "b", "c"]


def test_pairs_that_stand_in_one_row_are_taken_apart() -> None:
    rows = {"sentence1": [["a", "b"]], "sentence2": [["c", "d"]], "labels": [[1, 0]]}
    assert sorted(task_texts(holding("TwitterURLCorpus", rows))) == ["a", "b", "c", "d"]


def test_of_summaries_the_texts_and_all_their_summaries() -> None:
    rows = {"text": ["a"], "human_summaries": [["b"]], "machine_summaries": [["c", "d"]], "relevance": [[0.1, 0.2]]}
    assert sorted(task_texts(holding("SummEvalSummarization.v2", rows))) == ["a", "b", "c", "d"]


def test_only_the_subsets_that_are_evaluated_count() -> None:
    task = mteb.get_task("STS17").filter_languages(["eng"], hf_subsets=["en-en"])
    for subset in ("en-en", "es-es"):
        rows = {"sentence1": [f"{subset} a"], "sentence2": [f"{subset} b"], "score": [1.0]}
        task.dataset = (task.dataset or {}) | {subset: DatasetDict(test=Dataset.from_dict(rows))}
    assert sorted(task_texts(task)) == ["en-en a", "en-en b"]


def test_columns_of_parallel_languages_are_held_once() -> None:
    task = mteb.get_task("FloresBitextMining")
    assert task.parallel_subsets
    (split,) = task.eval_splits
    task.dataset = DatasetDict({split: Dataset.from_dict({"eng_Latn": ["a"], "deu_Latn": ["b"]})})
    assert sorted(task_texts(task)) == ["a", "b"]


def searching(query: str) -> dict[str, Any]:
    """A search of three documents, two of which are relevant to the query that is judged."""
    corpus = {"id": ["d0", "d1", "d2"], "title": ["T", "", "U"], "text": ["a", "b", "c"]}
    split = {
        "corpus": Dataset.from_dict(corpus),
        "queries": Dataset.from_dict({"id": ["q0", "q1"], "text": [query, "not judged"]}),
        "relevant_docs": {"q0": {"d0": 1, "d1": 2, "d2": 0}},
        "top_ranked": None,
    }
    return {"default": {"test": split}}


def test_of_a_search_judged_queries_and_relevant_documents_are_held() -> None:
    task = mteb.get_task("SciFact")
    task.dataset = searching("asked")
    assert list(task_texts(task)) == ["asked", "T a", "b"]


def test_of_a_task_of_several_those_of_all_are_held() -> None:
    task = mteb.get_task("CQADupstackRetrieval")
    for number, part in enumerate(task.tasks):
        part.dataset = searching(f"asked {number}")
    assert [text for text in task_texts(task) if "asked" in text] == [f"asked {number}" for number in range(12)]


@pytest.mark.slow
def test_named_tasks_are_read_once_and_their_texts_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Distractors do not count. Two models: mteb would read for the second one from the hub."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    documents, queries = texts(8, 1), texts(4, 2)
    write_search(tmp_path / "hub/scifact", queries, documents)
    compared, contamination = RandomModels(), Contamination(0.8)
    models = {name: MtebModel(compared, name, name) for name in ("base", ROUTED)}
    tasks = named_tasks(["SciFact"], tmp_path / "hub")
    table = named_scores(models, tasks, tmp_path / "cache", contamination)
    assert table["SciFact"].keys() == models.keys()
    assert len(compared.asked) == 24
    assert contamination.shares([[queries[0], documents[1], *documents[4:]]]) == {"SciFact": 0.25}
    again, held = RandomModels(), Contamination(0.8)
    fresh = named_tasks(["SciFact"], tmp_path / "hub")
    assert named_scores({"base": MtebModel(again, "base", "base")}, fresh, tmp_path / "cache", held)["SciFact"] == {
        "base": table["SciFact"]["base"]
    }
    assert again.asked == []
    assert held.shares([queries]) == {"SciFact": 0.5}
