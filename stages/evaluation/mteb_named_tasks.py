"""Tasks of mteb that the recipe names, from the hub or from folders in its format, and the texts that they hold."""

import itertools
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from mteb import get_benchmark, get_tasks
from mteb.abstasks import AbsTask, AbsTaskRetrieval

from stages.corpus.locations import files_digest
from stages.evaluation.contamination import Contamination
from stages.evaluation.mteb_scores import MtebModel, Table, mteb_scores, reset_draws, task_parts

BATCH_ROWS = 256  # a row of an older clustering task is a set of thousands of texts


def named_tasks(names: Sequence[str], folder: Path | None) -> dict[str, AbsTask]:
    """Find tasks by their names or those of mteb's benchmarks.

    Args:
        folder: has a subfolder for each data set, in the hub's format, called like the last part of the data set's
            name on the hub; None: the hub.

    Raises:
        ValueError: mteb knows no task or benchmark of a name.
        FileNotFoundError: `folder` lacks a task's data set.
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
    """Have a task read its rows from a local folder; the digest of the rows is its revision."""
    rows = folder / Path(task.metadata.dataset["path"]).name
    if not rows.is_dir():
        raise FileNotFoundError(f"evaluate.mteb.folder: {rows} is missing; {task.metadata.name} reads its rows there")
    revision = files_digest(sorted(path for path in rows.rglob("*") if path.is_file()))
    dataset = {**task.metadata.dataset, "path": str(rows), "revision": revision}
    # A copy, since all objects of a task share their class's metadata.
    task.metadata = task.metadata.model_copy(update={"dataset": dataset})


def named_scores(
    models: Mapping[str, MtebModel], tasks: Mapping[str, AbsTask], cache: Path, contamination: Contamination
) -> Table:
    """Compute `mteb_scores` with one task in memory at a time, and add each task's texts to `contamination`."""
    table: Table = {}
    for name, task in tasks.items():
        reset_draws(task)  # some tasks draw their rows
        # Once for all models: mteb would load the rows for each, and forget the local folder when it unloads them.
        for part in task_parts(task):
            part.load_data()
        table |= mteb_scores(models, {name: task}, cache)
        contamination.add(name, task_texts(task))
        for part in task_parts(task):
            part.unload_data()
    return table


def task_texts(task: AbsTask) -> Iterator[str]:
    """Give the texts that a loaded task tests with: judged queries and relevant documents, or all texts but labels."""
    for part in task_parts(task):
        if isinstance(part, AbsTaskRetrieval):
            part.convert_v1_dataset_format_to_v2(num_proc=None)
            for rows in _evaluated_splits(part):
                yield from _search_texts(rows)
        else:
            label = getattr(part, "label_column_name", "")
            for rows in _evaluated_splits(part):
                columns = [name for name in rows.column_names if name != label]
                for batch in rows.select_columns(columns).iter(BATCH_ROWS):
                    yield from _strings(batch)


def _evaluated_splits(task: AbsTask) -> list[Any]:
    """Evaluated splits of all subsets, each once, found where mteb finds them."""
    dataset: Any = task.dataset
    splits = itertools.product(task.hf_subsets, task.eval_splits)
    found = [dataset[subset][split] if subset in dataset else dataset[split] for subset, split in splits]
    return list({id(rows): rows for rows in found}.values())


def _search_texts(rows: Any) -> Iterator[str]:
    """Judged queries, and documents that are relevant to any, with their titles as mteb encodes them."""
    judged = rows["relevant_docs"]
    relevant = {name for scores in judged.values() for name, score in scores.items() if score > 0}
    for batch in _rows_named(rows["queries"], judged).iter(BATCH_ROWS):
        yield from _strings(batch["text"])
    for batch in _rows_named(rows["corpus"], relevant).iter(BATCH_ROWS):
        titles = batch.get("title", [""] * len(batch["text"]))
        yield from (f"{title or ''} {text}".strip() for title, text in zip(titles, batch["text"], strict=True))


def _rows_named(rows: Dataset, names: Container[str]) -> Dataset:
    return rows.select([number for number, name in enumerate(rows["id"]) if name in names])


def _strings(value: Any) -> Iterator[str]:
    """Every string in nested lists and dictionaries."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)
