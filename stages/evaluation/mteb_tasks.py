"""Tasks for mteb, made of the curated test splits.

A task carries the digest of its rows as its revision, so that mteb's cache never answers for other rows.
Scored pairs make no pair classification: where a graded similarity turns into yes or no, nobody has said.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, DatasetDict
from mteb.abstasks import (
    AbsTask,
    AbsTaskBitextMining,
    AbsTaskClassification,
    AbsTaskClustering,
    AbsTaskPairClassification,
    AbsTaskRetrieval,
    AbsTaskSTS,
)
from mteb.abstasks.task_metadata import TaskMetadata, TaskType
from mteb.languages.iso_mappings import _get_iso1_to_iso3, _get_iso3_to_default_script

from stages.corpus.languages import UNDETERMINED, text_languages
from stages.corpus.tables import read_split
from stages.metrics.lexical import bm25_rank

# Of a task of ours, so that none is taken for one of mteb's.
PREFIX = "Local"
# Of a reranking task: its queries, and the documents of each; texts that are paired. mteb takes a millisecond for each.
NUM_QUERIES, CANDIDATES, NUM_PAIRED = 100, 20, 200
Make = Callable[[Path, str], AbsTask]


def local_tasks(curated: Path, sources: Mapping[str, Sequence[str]], k1: float, b: float) -> dict[str, AbsTask]:
    """Tasks of each source, by task of ours, on its test rows; a classifier is fitted on dev, as ours are.

    Args:
        k1, b: of BM25, which finds the candidates of reranking.

    Returns:
        By their names, like `LocalRetrieval.wikipedia`.
    """
    searches = (_retrieval, partial(_reranking, k1=k1, b=b))
    makers: dict[str, tuple[Make, ...]] = {
        "retrieval": searches,
        "unseen": searches,
        "text-matching": (_similarity,),
        "clustering": (_clustering, _pair_classification),
        "classification": (_classification,),
    }
    made = [make(curated, source) for task, names in sources.items() for source in names for make in makers[task]]
    return {task.metadata.name: task for task in made}


def bitext_tasks(curated: Path, sources: Sequence[str]) -> dict[str, AbsTask]:
    """Bitext mining on the test rows of those sources whose pairs are in two languages; a subset a pair of them."""
    tables = {source: read_split(curated, "pairs", "test", [source]) for source in sources}
    made = [_bitext(source, rows) for source, rows in tables.items() if any(map(_is_pair, _codes(rows)))]
    return {task.metadata.name: task for task in made}


def _retrieval(curated: Path, source: str) -> AbsTask:
    rows = read_split(curated, "pairs", "test", [source])
    task = _task(AbsTaskRetrieval, "Retrieval", source, rows, "ndcg_at_10")
    task.dataset = _search(rows, range(len(rows)), None)
    return task


def _reranking(curated: Path, source: str, k1: float, b: float) -> AbsTask:
    """BM25's candidates: a model under test should not have chosen what it ranks."""
    rows = read_split(curated, "pairs", "test", [source])
    asked = sorted(_drawn(len(rows))[:NUM_QUERIES])
    queries, documents = rows["query"].take(asked).to_pylist(), rows["document"].to_pylist()
    ranked = bm25_rank(queries, documents, CANDIDATES, k1, b).tolist()
    candidates = {row: few if row in few else [*few[:-1], row] for row, few in zip(asked, ranked, strict=True)}
    described = (
        f"{len(asked)} held-out queries of {source}, each with the {len(ranked[0])} best documents of BM25 (k1 {k1}, "
        f"b {b}), its own in place of the last where it is not among them"
    )
    ranks = (1, 10, 1000)  # of the seven that mteb would score at, the ones that it needs
    task = _task(AbsTaskRetrieval, "Reranking", source, rows, "map_at_1000", description=described, k_values=ranks)
    task.dataset = _search(rows, asked, {str(row): [str(one) for one in few] for row, few in candidates.items()})
    return task


def _search(
    rows: pa.Table, asked: Sequence[int], candidates: dict[str, list[str]] | None
) -> dict[str, dict[str, dict[str, object]]]:
    """All documents, and the queries that are asked, as mteb has them; document i is relevant to query i."""
    names, of_queries = ([str(row) for row in numbers] for numbers in (range(len(rows)), asked))
    return {
        "default": {
            "test": {
                "corpus": Dataset.from_dict({"id": names, "text": rows["document"].to_pylist()}),
                "queries": Dataset.from_dict({"id": of_queries, "text": rows["query"].take(list(asked)).to_pylist()}),
                "relevant_docs": {name: {name: 1} for name in of_queries},
                "top_ranked": candidates,
            }
        }
    }


def _drawn(count: int) -> list[int]:
    """All of so many rows in an order that is drawn once."""
    return list(np.random.default_rng(0).permutation(count).tolist())


def _similarity(curated: Path, source: str) -> AbsTask:
    rows = read_split(curated, "scored", "test", [source])
    task = _task(AbsTaskSTS, "STS", source, rows, "cosine_spearman", min_score=0, max_score=1)
    columns = {"sentence1": "text_a", "sentence2": "text_b", "score": "score"}
    task.dataset = {"default": DatasetDict(test=_dataset(rows, columns))}
    return task


def _clustering(curated: Path, source: str) -> AbsTask:
    rows = read_split(curated, "labelled", "test", [source])
    task = _task(
        AbsTaskClustering,
        "Clustering",
        source,
        rows,
        "v_measure",
        max_fraction_of_documents_to_embed=None,
        max_document_to_embed=None,
    )
    task.dataset = {"default": DatasetDict(test=_dataset(rows, {"sentences": "text", "labels": "label"}))}
    return task


def _pair_classification(curated: Path, source: str) -> AbsTask:
    rows = read_split(curated, "labelled", "test", [source])
    described = f"Up to {NUM_PAIRED} held-out texts of {source}, each with one of its label, 1, and one of another, 0"
    task = _task(AbsTaskPairClassification, "PairClassification", source, rows, "cosine_ap", description=described)
    texts = rows["text"].to_pylist()
    left, right, same = zip(*_partners(rows["label"].to_pylist()), strict=True)
    columns = {"sentence1": [texts[row] for row in left], "sentence2": [texts[row] for row in right], "labels": same}
    task.dataset = {"default": DatasetDict(test=Dataset.from_dict(columns))}
    return task


def _partners(labels: Sequence[str]) -> list[tuple[int, int, int]]:
    """Rows, each with the next of its label and with the next of another, in the order drawn: (row, row, same)."""
    order = _drawn(len(labels))
    found: list[tuple[int, int, int]] = []
    for place, row in enumerate(order[:NUM_PAIRED]):
        for same in (1, 0):
            others = chain(order[place + 1 :], order[:place])
            partner = next((one for one in others if (labels[one] == labels[row]) == bool(same)), None)
            found += [] if partner is None else [(row, partner, same)]
    return found


def _classification(curated: Path, source: str) -> AbsTask:
    fitted, rows = (read_split(curated, "labelled", split, [source]) for split in ("dev", "test"))
    both = pa.concat_tables([fitted, rows])
    task = _task(AbsTaskClassification, "Classification", source, both, "accuracy")
    # Numbers, because mteb's figures of two labels want one called 1.
    number = {label: at for at, label in enumerate(sorted(both["label"].unique().to_pylist()))}
    splits = {
        name: Dataset.from_dict(
            {"text": table["text"].to_pylist(), "label": [number[label] for label in table["label"].to_pylist()]}
        )
        for name, table in (("train", fitted), ("test", rows))
    }
    task.dataset = {"default": DatasetDict(splits)}
    return task


def _bitext(source: str, rows: pa.Table) -> AbsTask:
    pairs = [code for code in _codes(rows) if _is_pair(code)]
    rows = rows.filter(pc.is_in(rows["language"], pa.array(pairs)))
    languages = {code: _languages([code]) for code in pairs}
    task = _task(AbsTaskBitextMining, "BitextMining", source, rows, "f1", languages=languages)
    columns = {"sentence1": "query", "sentence2": "document"}
    task.dataset = {
        code: DatasetDict(test=_dataset(rows.filter(pc.equal(rows["language"], code)), columns)) for code in pairs
    }
    return task


def _task(
    parent: type[AbsTask],
    kind: TaskType,
    source: str,
    rows: pa.Table,
    main_score: str,
    *,
    description: str = "",
    languages: Mapping[str, list[str]] | None = None,
    **attributes: object,
) -> AbsTask:
    """A loaded task of mteb's class `parent`, still without its rows.

    Args:
        description: says what decides its figures beside its rows.
        languages: by subset; None where all rows are one.
    """
    digest = hashlib.sha256(description.encode())
    for column in rows.column_names:
        for value in rows[column].to_pylist():
            digest.update(f"{value}\0".encode())
    metadata = TaskMetadata(
        name=f"{PREFIX}{kind}.{source}",
        description=description or f"Held-out rows of {source}",
        type=kind,
        dataset={"path": source, "revision": digest.hexdigest()[:16]},
        eval_splits=["test"],
        eval_langs=_languages(_codes(rows)) if languages is None else dict(languages),
        main_score=main_score,
    )
    task = type(metadata.name, (parent,), {"metadata": metadata, **attributes})()
    task.data_loaded = True
    return task


def _dataset(rows: pa.Table, columns: Mapping[str, str]) -> Dataset:
    return Dataset.from_dict({name: rows[column].to_pylist() for name, column in columns.items()})


def _codes(rows: pa.Table) -> list[str]:
    return sorted(rows["language"].unique().to_pylist())


def _is_pair(code: str) -> bool:
    return len(text_languages(code)) == 2


def _languages(codes: Sequence[str]) -> list[str]:
    """The languages of `en` or `en-de` as mteb writes them: `eng-Latn`."""
    known = {one for code in codes for one in text_languages(code)} - {UNDETERMINED}
    long = [_get_iso1_to_iso3().get(one, one) for one in known]
    return sorted(f"{one}-{_get_iso3_to_default_script().get(one, 'Latn')}" for one in long)
