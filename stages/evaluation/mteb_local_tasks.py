"""Tasks for mteb, made of the curated test splits.

The digest of a task's rows is its revision, so that mteb's cache never answers for other rows. There is no pair
classification of scored pairs: nobody has said where a graded similarity turns into yes or no.
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
from mteb import abstasks
from mteb.abstasks import AbsTask
from mteb.abstasks.task_metadata import TaskMetadata, TaskType
from mteb.languages.iso_mappings import _get_iso1_to_iso3, _get_iso3_to_default_script

from stages.corpus.languages import UNDETERMINED, text_languages
from stages.corpus.tables import read_split
from stages.evaluation.measured_pairs import measured_pairs
from stages.metrics.lexical import bm25_rank
from stages.recipe.evaluate import Bm25

# Prefix of a local task's name, so that no local task is taken for one of mteb's.
PREFIX = "Local"
# A reranking task has at most so many queries, and candidates for each: mteb takes a millisecond for every candidate.
NUM_QUERIES, CANDIDATES = 100, 20
# Texts of a pair classification.
NUM_PAIRED = 200
# mteb's class and main score for each kind of task.
KINDS: Mapping[TaskType, tuple[type[AbsTask], str]] = {
    "Retrieval": (abstasks.AbsTaskRetrieval, "ndcg_at_10"),
    "Reranking": (abstasks.AbsTaskRetrieval, "map_at_1000"),
    "STS": (abstasks.AbsTaskSTS, "cosine_spearman"),
    "Clustering": (abstasks.AbsTaskClustering, "v_measure"),
    "PairClassification": (abstasks.AbsTaskPairClassification, "cosine_ap"),
    "Classification": (abstasks.AbsTaskClassification, "accuracy"),
    "BitextMining": (abstasks.AbsTaskBitextMining, "f1"),
}


def local_tasks(curated: Path, sources: Mapping[str, Sequence[str]], bm25: Bm25) -> dict[str, AbsTask]:
    """Make tasks of the test rows of each source, by name, such as `LocalRetrieval.wikipedia`.

    Where every label has one test row, no two texts share one, and there is no pair classification.

    Args:
        sources: names by task of the recipe.
        bm25: settings of BM25, which finds the candidates of reranking.
    """
    searches = (_retrieval, partial(_reranking, bm25=bm25))
    makers: dict[str, tuple[Callable[[Path, str], AbsTask | None], ...]] = {
        "retrieval": searches,
        "unseen": searches,
        "text-matching": (_similarity,),
        "clustering": (_clustering, _pair_classification),
        "classification": (_classification,),
    }
    made = [make(curated, source) for task, names in sources.items() for source in names for make in makers[task]]
    return {task.metadata.name: task for task in made if task is not None}


def bitext_tasks(curated: Path, sources: Sequence[str]) -> dict[str, AbsTask]:
    """Make bitext mining of the sources whose pairs are in two languages, with a subset for each pair of languages."""
    tables = {source: measured_pairs(curated, source) for source in sources}
    made = [_bitext(source, rows) for source, rows in tables.items() if any(map(_is_pair, _codes(rows)))]
    return {task.metadata.name: task for task in made}


def _retrieval(curated: Path, source: str) -> AbsTask:
    rows = measured_pairs(curated, source)
    task = _task("Retrieval", source, rows)
    task.dataset = _search(rows, range(len(rows)), None)
    return task


def _reranking(curated: Path, source: str, bm25: Bm25) -> AbsTask:
    """Rerank candidates of BM25, since a model under test should not have chosen what it ranks."""
    rows = measured_pairs(curated, source)
    chosen = sorted(_permutation(len(rows))[:NUM_QUERIES])
    queries, documents = rows["query"].take(chosen).to_pylist(), rows["document"].to_pylist()
    ranked = bm25_rank(queries, documents, CANDIDATES, bm25.k1, bm25.b).tolist()
    candidates = {
        str(row): [str(document) for document in (found if row in found else [*found[:-1], row])]
        for row, found in zip(chosen, ranked, strict=True)
    }
    description = (
        f"{len(chosen)} held-out queries of {source}, each with the {len(ranked[0])} best documents of BM25 "
        f"(k1 {bm25.k1}, b {bm25.b}), its own in place of the last where it is not among them"
    )
    ranks = (1, 10, 1000)  # of the seven that mteb would score at, the ones that it needs
    task = _task("Reranking", source, rows, description, k_values=ranks)
    task.dataset = _search(rows, chosen, candidates)
    return task


def _search(
    rows: pa.Table, chosen: Sequence[int], candidates: dict[str, list[str]] | None
) -> dict[str, dict[str, dict[str, object]]]:
    """All documents and the chosen queries in mteb's format; document i is relevant to query i."""
    documents, queries = ([str(row) for row in numbers] for numbers in (range(len(rows)), chosen))
    return {
        "default": {
            "test": {
                "corpus": Dataset.from_dict({"id": documents, "text": rows["document"].to_pylist()}),
                "queries": Dataset.from_dict({"id": queries, "text": rows["query"].take(list(chosen)).to_pylist()}),
                "relevant_docs": {name: {name: 1} for name in queries},
                "top_ranked": candidates,
            }
        }
    }


def _permutation(count: int) -> list[int]:
    """All of so many rows in a fixed random order."""
    return list(np.random.default_rng(0).permutation(count).tolist())


def _similarity(curated: Path, source: str) -> AbsTask:
    rows = read_split(curated, "scored", "test", [source])
    task = _task("STS", source, rows, min_score=0, max_score=1)
    columns = {"sentence1": "text_a", "sentence2": "text_b", "score": "score"}
    task.dataset = {"default": DatasetDict(test=_dataset(rows, columns))}
    return task


def _clustering(curated: Path, source: str) -> AbsTask:
    rows = read_split(curated, "labelled", "test", [source])
    task = _task("Clustering", source, rows, max_fraction_of_documents_to_embed=None, max_document_to_embed=None)
    task.dataset = {"default": DatasetDict(test=_dataset(rows, {"sentences": "text", "labels": "label"}))}
    return task


def _pair_classification(curated: Path, source: str) -> AbsTask | None:
    rows = read_split(curated, "labelled", "test", [source])
    description = f"Up to {NUM_PAIRED} held-out texts of {source}, each with one of its label, 1, and one of another, 0"
    task = _task("PairClassification", source, rows, description)
    texts = rows["text"].to_pylist()
    left, right, same = zip(*_partners(rows["label"].to_pylist()), strict=True)
    if not any(same):  # average precision is undefined
        return None
    columns = {"sentence1": [texts[row] for row in left], "sentence2": [texts[row] for row in right], "labels": same}
    task.dataset = {"default": DatasetDict(test=Dataset.from_dict(columns))}
    return task


def _partners(labels: Sequence[str]) -> list[tuple[int, int, int]]:
    """Pair rows with the next row of the same label and with the next of another: (row, partner, same label)."""
    order = _permutation(len(labels))
    found: list[tuple[int, int, int]] = []
    for position, row in enumerate(order[:NUM_PAIRED]):
        for same in (1, 0):
            following = chain(order[position + 1 :], order[:position])
            partner = next((other for other in following if (labels[other] == labels[row]) == bool(same)), None)
            found += [] if partner is None else [(row, partner, same)]
    return found


def _classification(curated: Path, source: str) -> AbsTask:
    """Classify test rows by a classifier fitted on dev rows, as in `stages.evaluation.tasks`."""
    fitted, rows = (read_split(curated, "labelled", split, [source]) for split in ("dev", "test"))
    both = pa.concat_tables([fitted, rows])
    task = _task("Classification", source, both)
    # Numbers, because mteb's figures for two labels expect one of them to be 1.
    numbers = {label: number for number, label in enumerate(sorted(both["label"].unique().to_pylist()))}
    splits = {
        name: Dataset.from_dict(
            {"text": table["text"].to_pylist(), "label": [numbers[label] for label in table["label"].to_pylist()]}
        )
        for name, table in (("train", fitted), ("test", rows))
    }
    task.dataset = {"default": DatasetDict(splits)}
    return task


def _bitext(source: str, rows: pa.Table) -> AbsTask:
    pairs = [code for code in _codes(rows) if _is_pair(code)]
    rows = rows.filter(pc.is_in(rows["language"], pa.array(pairs)))
    task = _task("BitextMining", source, rows, languages={code: _languages([code]) for code in pairs})
    columns = {"sentence1": "query", "sentence2": "document"}
    task.dataset = {
        code: DatasetDict(test=_dataset(rows.filter(pc.equal(rows["language"], code)), columns)) for code in pairs
    }
    return task


def _task(
    kind: TaskType,
    source: str,
    rows: pa.Table,
    description: str = "",
    languages: Mapping[str, list[str]] | None = None,
    **attributes: object,
) -> AbsTask:
    """Make a task that counts as loaded and still lacks its rows.

    Args:
        description: says what determines the task's figures beside its rows.
        languages: languages by subset; None where there are no subsets.
    """
    digest = hashlib.sha256(description.encode())
    for column in rows.column_names:
        for value in rows[column].to_pylist():
            digest.update(f"{value}\0".encode())
    parent, main_score = KINDS[kind]
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
    """Languages of codes such as `en` or `en-de` in mteb's form, `eng-Latn`."""
    known = {language for code in codes for language in text_languages(code)} - {UNDETERMINED}
    long = [_get_iso1_to_iso3().get(language, language) for language in known]
    return sorted(f"{language}-{_get_iso3_to_default_script().get(language, 'Latn')}" for language in long)
