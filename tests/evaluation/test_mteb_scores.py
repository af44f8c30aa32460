"""mteb as the engine: our tasks, its own from local folders, adapters by task, results kept by digest."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import mteb
import numpy as np
import pytest
from mteb.abstasks import AbsTask
from sentence_transformers import SentenceTransformer
from sklearn.metrics import average_precision_score, f1_score

from stages.corpus.tables import SCHEMAS, write_table
from stages.evaluation.mteb_local_tasks import bitext_tasks, local_tasks
from stages.evaluation.mteb_named_tasks import named_tasks
from stages.evaluation.mteb_scores import ROUTED, MtebModel, mteb_scores
from stages.evaluation.tasks import ranking_score
from stages.metrics.lexical import bm25_rank
from stages.metrics.retrieval import rank
from stages.metrics.similarity import spearman
from stages.recipe.evaluate import Bm25
from stages.recipe.fields import TASKS
from tests.conftest import WORDS

SOURCES = {
    "retrieval": ["faq"],
    "text-matching": ["graded"],
    "clustering": ["topics"],
    "classification": ["topics"],
}
BM25 = Bm25(k1=1.5, b=0.75)
ORIGIN = {"entity": "", "language": "en", "license": "MIT"}


def texts(count: int, seed: int) -> list[str]:
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(WORDS, size=6)) for _ in range(count)]


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few test rows of every kind, and dev rows to fit a classifier on."""
    folder = tmp_path_factory.mktemp("curated")
    write(folder, "pairs", "test", "faq", {"query": texts(12, 1), "document": texts(12, 2)})
    scores = np.random.default_rng(3).random(12).tolist()
    write(folder, "scored", "test", "graded", {"text_a": texts(12, 4), "text_b": texts(12, 5), "score": scores})
    for split, seed in (("dev", 6), ("test", 7)):
        write(folder, "labelled", split, "topics", {"text": texts(20, seed), "label": ["copper", "malt"] * 10})
    return folder


def write(folder: Path, kind: str, split: str, source: str, columns: dict[str, list]) -> None:
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    origin = {**ORIGIN, "source": source}
    table = [{"id": str(number), **origin, **row} for number, row in enumerate(rows)]
    write_table(folder / kind / f"{split}.parquet", table, SCHEMAS[kind])


class RandomModels:
    """Models whose vectors follow from name, side and text alone; notes the texts that it was asked for."""

    def __init__(self, *tasks: str) -> None:
        self.tasks = set(tasks or TASKS)
        self.asked: list[tuple[str, str, str]] = []

    def embed(self, name: str, texts: Sequence[str], side: str, source: str) -> np.ndarray:
        self.asked += [(name, side, source)] * len(texts)
        seeds = [hashlib.sha256(f"{name} {side} {text}".encode()).digest() for text in texts]
        drawn = np.stack([np.random.default_rng(list(seed)).normal(size=8) for seed in seeds]).astype(np.float32)
        return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


class MergedModels:
    """The merged folders of a release, as a consumer reads them."""

    def __init__(self, release: Path) -> None:
        self.release, self.tasks = release, set(TASKS)

    def embed(self, name: str, texts: Sequence[str], side: str, source: str) -> np.ndarray:
        return SentenceTransformer(str(self.release / name), device="cpu").encode(list(texts), prompt_name=side)


def test_its_figures_are_ours(curated: Path, tmp_path: Path) -> None:
    models = RandomModels()
    table = mteb_scores({"base": MtebModel(models, "base", "a")}, local_tasks(curated, SOURCES, BM25), tmp_path)
    queries, documents = (models.embed("base", texts(12, s), side, "") for s, side in ((1, "query"), (2, "document")))
    ours = ranking_score(rank(queries, documents, 12)[0]).figures["ndcg_at_10"]
    assert table["LocalRetrieval.faq"]["base"] == pytest.approx(ours, abs=1e-5)  # which mteb rounds to five digits
    left, right = (models.embed("base", texts(12, seed), "document", "") for seed in (4, 5))
    graded = np.random.default_rng(3).random(12)
    assert table["LocalSTS.graded"]["base"] == pytest.approx(spearman(left, right, graded), abs=1e-6)
    assert set(table) == {
        "LocalRetrieval.faq",
        "LocalReranking.faq",
        "LocalSTS.graded",
        "LocalClustering.topics",
        "LocalPairClassification.topics",
        "LocalClassification.topics",
    }


@pytest.mark.slow
def test_a_model_is_scored_alike_whoever_was_before_it(curated: Path, tmp_path: Path) -> None:
    """mteb draws texts to cluster and to fit on; the same for every model, also where an earlier one's were kept."""
    same = {name: MtebModel(RandomModels(), "base", name) for name in ("first", "second")}
    alone = mteb_scores({"second": same["second"]}, local_tasks(curated, SOURCES, BM25), tmp_path / "alone")
    both = mteb_scores(same, local_tasks(curated, SOURCES, BM25), tmp_path / "both")
    for task, of_task in both.items():
        assert of_task["first"] == of_task["second"] == alone[task]["second"], task


def test_a_task_goes_through_its_adapter_and_a_query_is_a_query(curated: Path, tmp_path: Path) -> None:
    models = RandomModels()
    mteb_scores({ROUTED: MtebModel(models, ROUTED, "a")}, local_tasks(curated, SOURCES, BM25), tmp_path)
    assert set(models.asked) == {
        ("retrieval", "query", "faq"),
        ("retrieval", "document", "faq"),
        ("text-matching", "document", "graded"),
        ("text-matching", "document", "topics"),
        ("clustering", "document", "topics"),
        ("classification", "document", "topics"),
    }


def test_the_release_is_scored_where_it_has_the_adapter(curated: Path, tmp_path: Path) -> None:
    models = RandomModels("clustering")
    compared = {name: MtebModel(models, name, "a") for name in ("base", ROUTED)}
    table = mteb_scores(compared, local_tasks(curated, {"clustering": ["topics"]}, BM25), tmp_path)
    assert {task: list(by_model) for task, by_model in table.items()} == {
        "LocalClustering.topics": ["base", ROUTED],
        "LocalPairClassification.topics": ["base"],  # goes through the adapter for text matching
    }
    assert {name for name, _, _ in models.asked} == {"base", "clustering"}


def test_reranking_is_of_bm25s_candidates_and_the_right_document(
    curated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.evaluation.mteb_local_tasks.CANDIDATES", 4)
    task = local_tasks(curated, {"retrieval": ["faq"]}, BM25)["LocalReranking.faq"]
    candidates = task.dataset["default"]["test"]["top_ranked"]
    found = bm25_rank(texts(12, 1), texts(12, 2), 4, BM25.k1, BM25.b).tolist()
    missed = [row for row in range(12) if row not in found[row]]
    assert 0 < len(missed) < 12
    for row, few in enumerate(found):
        expected = [*few[:3], row] if row in missed else few
        assert candidates[str(row)] == [str(one) for one in expected]
    assert "4 best documents of BM25 (k1 1.5, b 0.75)" in task.metadata.description
    models = RandomModels()
    table = mteb_scores({"base": MtebModel(models, "base", "a")}, {"reranking": task}, tmp_path)
    queries, documents = (models.embed("base", texts(12, s), side, "") for s, side in ((1, "query"), (2, "document")))
    similar = queries @ documents.T
    places = [sum(similar[row, int(one)] >= similar[row, row] for one in candidates[str(row)]) for row in range(12)]
    assert table["reranking"]["base"] == pytest.approx(np.mean(1 / np.array(places)), abs=1e-5)
    monkeypatch.setattr("stages.evaluation.mteb_local_tasks.NUM_QUERIES", 5)
    fewer = local_tasks(curated, {"retrieval": ["faq"]}, BM25)["LocalReranking.faq"].dataset["default"]["test"]
    assert (len(fewer["queries"]), len(fewer["corpus"])) == (5, 12)
    assert fewer["top_ranked"] == {name: candidates[name] for name in fewer["relevant_docs"]}
    other = local_tasks(curated, {"retrieval": ["faq"]}, Bm25(k1=1.2, b=0.75))["LocalReranking.faq"]
    assert other.metadata.revision != task.metadata.revision


def test_pairs_of_one_topic_and_of_two_are_told_apart_by_cosine(
    curated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = local_tasks(curated, SOURCES, BM25)["LocalPairClassification.topics"]
    pairs = task.dataset["default"]["test"]
    topic = dict(zip(texts(20, 7), ["copper", "malt"] * 10, strict=True))
    assert len(pairs) == 40
    assert pairs["labels"] == [int(topic[one["sentence1"]] == topic[one["sentence2"]]) for one in pairs]
    assert sum(pairs["labels"]) == 20
    monkeypatch.setattr("stages.evaluation.mteb_local_tasks.NUM_PAIRED", 3)
    fewer = local_tasks(curated, SOURCES, BM25)["LocalPairClassification.topics"].dataset["default"]["test"]
    assert fewer.to_list() == pairs.to_list()[:6]
    models = RandomModels()
    table = mteb_scores({"base": MtebModel(models, "base", "a")}, {"pairs": task}, tmp_path)
    left, right = (models.embed("base", list(pairs[side]), "document", "") for side in ("sentence1", "sentence2"))
    ours = average_precision_score(pairs["labels"], (left * right).sum(axis=1))
    assert table["pairs"]["base"] == pytest.approx(ours, abs=1e-5)


def test_texts_that_share_no_label_make_no_pairs(tmp_path: Path) -> None:
    write(tmp_path, "labelled", "test", "topics", {"text": texts(3, 7), "label": ["copper", "malt", "oak"]})
    assert list(local_tasks(tmp_path, {"clustering": ["topics"]}, BM25)) == ["LocalClustering.topics"]


def test_pairs_in_two_languages_are_mined_by_the_text_matching_adapter(curated: Path, tmp_path: Path) -> None:
    same, others = texts(6, 8), texts(6, 9)
    columns = {"query": [*same, *same], "document": [*same, *others], "language": ["en-de"] * 6 + ["en-pt-BR"] * 6}
    write(tmp_path / "curated", "pairs", "test", "programs", columns)
    assert bitext_tasks(curated, ["faq"]) == {}
    (task,) = bitext_tasks(tmp_path / "curated", ["programs"]).values()
    assert task.metadata.eval_langs == {"en-de": ["deu-Latn", "eng-Latn"], "en-pt-BR": ["eng-Latn", "por-Latn"]}
    models = RandomModels()
    table = mteb_scores({ROUTED: MtebModel(models, ROUTED, "a")}, {"bitext": task}, tmp_path)
    assert set(models.asked) == {("text-matching", "document", "programs")}
    left, right = (models.embed("text-matching", side, "document", "") for side in (same, others))
    portuguese = f1_score(np.arange(6), (left @ right.T).argmax(axis=1), average="weighted", zero_division=0)
    assert portuguese < 1  # German is the same as English here, and all found
    assert table["bitext"][ROUTED] == pytest.approx((1 + portuguese) / 2, abs=1e-5)
    retrieval = local_tasks(tmp_path / "curated", {"retrieval": ["programs"]}, BM25)["LocalRetrieval.programs"]
    assert retrieval.metadata.eval_langs == ["deu-Latn", "eng-Latn", "por-Latn"]


def test_a_merged_folder_scores_the_same_from_outside(curated: Path, tiny_release: Path, tmp_path: Path) -> None:
    tasks = local_tasks(curated, SOURCES, BM25)
    merged = MergedModels(tiny_release / "merged")
    ours = mteb_scores({ROUTED: MtebModel(merged, ROUTED, "a")}, tasks, tmp_path)
    for name, adapter in (("LocalRetrieval.faq", "retrieval"), ("LocalSTS.graded", "text-matching")):
        outside = SentenceTransformer(str(merged.release / adapter), device="cpu")
        outside.default_prompt_name = "document"  # as a release's folders have it
        found = mteb.evaluate(outside, fresh(tasks[name]), cache=None, co2_tracker=False)
        assert found.task_results[0].get_score() == pytest.approx(ours[name][ROUTED], abs=1e-5)


def fresh(task: AbsTask) -> AbsTask:
    """The same rows with a new random state."""
    again = type(task)()
    again.dataset, again.data_loaded = task.dataset, True
    return again


def test_nothing_is_scored_twice_and_nothing_stale_is_taken(curated: Path, tmp_path: Path) -> None:
    sources = {"retrieval": ["faq"]}
    first, again, other_model, other_rows = RandomModels(), RandomModels(), RandomModels(), RandomModels()
    mteb_scores({"base": MtebModel(first, "base", "a")}, local_tasks(curated, sources, BM25), tmp_path / "cache")
    mteb_scores({"base": MtebModel(again, "base", "a")}, local_tasks(curated, sources, BM25), tmp_path / "cache")
    mteb_scores({"base": MtebModel(other_model, "base", "b")}, local_tasks(curated, sources, BM25), tmp_path / "cache")
    assert (len(first.asked), len(again.asked), len(other_model.asked)) == (48, 0, 48)
    write(tmp_path / "curated", "pairs", "test", "faq", {"query": texts(9, 1), "document": texts(9, 2)})
    changed = local_tasks(tmp_path / "curated", sources, BM25)
    mteb_scores({"base": MtebModel(other_rows, "base", "a")}, changed, tmp_path / "cache")
    assert len(other_rows.asked) == 36


def test_mtebs_own_tasks_are_read_from_folders_in_the_hubs_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    write_search(tmp_path / "hub/scifact", texts(4, 2), texts(8, 1))
    tasks = named_tasks(["SciFact"], tmp_path / "hub")
    models = RandomModels()
    table = mteb_scores({ROUTED: MtebModel(models, ROUTED, "a")}, tasks, tmp_path / "cache")
    assert 0 <= table["SciFact"][ROUTED] <= 1
    assert set(models.asked) == {("retrieval", "query", ""), ("retrieval", "document", "")}
    assert len(models.asked) == 12


def write_search(folder: Path, queries: list[str], documents: list[str]) -> None:
    """A data set in the hub's format, document n the answer to query n: JSON lines, and the card that tells whose."""
    configs = {
        "corpus": ("corpus", [{"_id": f"d{n}", "title": "", "text": text} for n, text in enumerate(documents)]),
        "queries": ("queries", [{"_id": f"q{n}", "text": text} for n, text in enumerate(queries)]),
        "default": ("test", [{"query-id": f"q{n}", "corpus-id": f"d{n}", "score": 1} for n in range(len(queries))]),
    }
    folder.mkdir(parents=True)
    card = ["---", "configs:"]
    for name, (split, rows) in configs.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        card += [f"- config_name: {name}", "  data_files:", f"  - split: {split}", f"    path: {name}.jsonl"]
    (folder / "README.md").write_text("\n".join([*card, "---", ""]), encoding="utf-8")


def test_names_that_mteb_does_not_know_and_folders_that_are_missing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mteb knows no task or benchmark 'SciFacts'"):
        named_tasks(["SciFacts"], None)
    with pytest.raises(FileNotFoundError, match=r"scifact is missing; SciFact reads its rows there"):
        named_tasks(["SciFact"], tmp_path)
