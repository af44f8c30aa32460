"""Tasks of mteb: made of the curated test splits, or mteb's own by name.

A task of ours carries the digest of its rows as its revision, so that mteb's cache never answers for other rows.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
from datasets import Dataset, DatasetDict
from mteb import get_benchmark, get_tasks
from mteb.abstasks import AbsTask, AbsTaskClassification, AbsTaskClustering, AbsTaskRetrieval, AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata, TaskType
from mteb.languages.iso_mappings import _get_iso1_to_iso3, _get_iso3_to_default_script

from stages.corpus.locations import files_digest
from stages.corpus.tables import read_split

# Of a task of ours, so that none is taken for one of mteb's.
PREFIX = "Local"


def local_tasks(curated: Path, sources: Mapping[str, Sequence[str]]) -> dict[str, AbsTask]:
    """A task for each source, by task of ours, on its test rows; a classifier is fitted on dev, as ours are.

    Returns:
        By their names, like `LocalRetrieval.wikipedia`.
    """
    made = [_MAKERS[task](curated, source) for task, names in sources.items() for source in names]
    return {task.metadata.name: task for task in made}


def named_tasks(names: Sequence[str], folder: Path | None) -> dict[str, AbsTask]:
    """Tasks that mteb knows, by their names or those of its benchmarks.

    Args:
        folder: holds a data set a folder, in the hub's format under the last part of its name there; None: the hub.

    Raises:
        ValueError: mteb knows no task or benchmark of a name.
        FileNotFoundError: `folder` lacks a task's.
    """
    tasks: dict[str, AbsTask] = {}
    for name in names:
        try:
            found = list(get_benchmark(name))
        except KeyError:
            try:
                found = list(get_tasks([name]))
            except KeyError as error:
                raise ValueError(f"evaluate.mteb.tasks: mteb knows no task or benchmark {name!r}: {error}") from error
        tasks |= {task.metadata.name: task for task in found}
    if folder is not None:
        for task in tasks.values():
            _read_from(task, folder)
    return tasks


def _read_from(task: AbsTask, folder: Path) -> None:
    """Have a task read its rows from a local folder, and know it by the digest of what is there."""
    here = folder / Path(task.metadata.dataset["path"]).name
    if not here.is_dir():
        raise FileNotFoundError(f"evaluate.mteb.folder: {here} is missing; {task.metadata.name} reads its rows there")
    rows = files_digest(sorted(path for path in here.rglob("*") if path.is_file()))
    dataset = {**task.metadata.dataset, "path": str(here), "revision": rows}
    # A copy: the objects of a task share their class's metadata.
    task.metadata = task.metadata.model_copy(update={"dataset": dataset})


def _retrieval(curated: Path, source: str) -> AbsTask:
    rows = read_split(curated, "pairs", "test", [source])
    names = [str(number) for number in range(len(rows))]
    task = _task(AbsTaskRetrieval, "Retrieval", source, rows, "ndcg_at_10")
    task.dataset = {
        "default": {
            "test": {
                "corpus": Dataset.from_dict({"id": names, "text": rows["document"].to_pylist()}),
                "queries": Dataset.from_dict({"id": names, "text": rows["query"].to_pylist()}),
                "relevant_docs": {name: {name: 1} for name in names},
                "top_ranked": None,
            }
        }
    }
    return task


def _similarity(curated: Path, source: str) -> AbsTask:
    rows = read_split(curated, "scored", "test", [source])
    task = _task(AbsTaskSTS, "STS", source, rows, "cosine_spearman", min_score=0, max_score=1)
    columns = {"sentence1": "text_a", "sentence2": "text_b", "score": "score"}
    task.dataset = {"default": DatasetDict(test=_dataset(rows, columns))}
    return task


def _clustering(curated: Path, source: str) -> AbsTask:
    rows = read_split(curated, "labelled", "test", [source])
    whole = {"max_fraction_of_documents_to_embed": None, "max_document_to_embed": None}
    task = _task(AbsTaskClustering, "Clustering", source, rows, "v_measure", **whole)
    task.dataset = {"default": DatasetDict(test=_dataset(rows, {"sentences": "text", "labels": "label"}))}
    return task


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


_MAKERS: dict[str, Callable[[Path, str], AbsTask]] = {
    "retrieval": _retrieval,
    "unseen": _retrieval,
    "text-matching": _similarity,
    "clustering": _clustering,
    "classification": _classification,
}


def _task(
    parent: type[AbsTask], kind: TaskType, source: str, rows: pa.Table, main_score: str, **attributes: object
) -> AbsTask:
    """A loaded task of mteb's class `parent`, still without its rows."""
    digest = hashlib.sha256()
    for column in rows.column_names:
        for value in rows[column].to_pylist():
            digest.update(f"{value}\0".encode())
    metadata = TaskMetadata(
        name=f"{PREFIX}{kind}.{source}",
        description=f"Held-out rows of {source}",
        type=kind,
        dataset={"path": source, "revision": digest.hexdigest()[:16]},
        eval_splits=["test"],
        eval_langs=sorted({_language(code) for code in rows["language"].unique().to_pylist()}),
        main_score=main_score,
    )
    task = type(metadata.name, (parent,), {"metadata": metadata, **attributes})()
    task.data_loaded = True
    return task


def _dataset(rows: pa.Table, columns: Mapping[str, str]) -> Dataset:
    return Dataset.from_dict({name: rows[column].to_pylist() for name, column in columns.items()})


def _language(code: str) -> str:
    """`en` as mteb writes it: `eng-Latn`."""
    long = _get_iso1_to_iso3().get(code, code)
    return f"{long}-{_get_iso3_to_default_script().get(long, 'Latn')}"
