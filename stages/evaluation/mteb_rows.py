"""The rows of a task of mteb: read once for all that is done with them, and the texts that it tests with."""

import itertools
from collections.abc import Container, Iterator
from contextlib import contextmanager
from typing import Any

from datasets import Dataset
from mteb._set_seed import _set_seed
from mteb.abstasks import AbsTask, AbsTaskRetrieval
from mteb.abstasks.aggregated_task import AbsTaskAggregate

BATCH_ROWS = 256  # a row of an older clustering task is a set of thousands of texts


@contextmanager
def loaded(task: AbsTask) -> Iterator[None]:
    """A task with its rows.

    mteb would read them for each model. Worse, where it unloads rows it forgets the folder that it was told to read.
    """
    draw_anew(task)  # some draw their rows
    for part in _parts(task):
        part.load_data()
    try:
        yield
    finally:
        for part in _parts(task):
            part.unload_data()


def draw_anew(task: AbsTask) -> None:
    """Have a task draw what it drew when it was made."""
    for part in _parts(task):
        part.rng_state, part.np_rng = _set_seed(part.seed)


def texts_of(task: AbsTask) -> Iterator[str]:
    """What the evaluated splits of a loaded task hold: queries and relevant documents, or every text but labels."""
    for part in _parts(task):
        if isinstance(part, AbsTaskRetrieval):
            part.convert_v1_dataset_format_to_v2(num_proc=None)
            for rows in _evaluated(part):
                yield from _searched(rows)
        else:
            label = getattr(part, "label_column_name", "")
            for rows in _evaluated(part):
                for batch in _batches(rows.select_columns([name for name in rows.column_names if name != label])):
                    yield from _strings(batch)


def _parts(task: AbsTask) -> list[AbsTask]:
    return list(task.tasks) if isinstance(task, AbsTaskAggregate) else [task]


def _evaluated(task: AbsTask) -> list[Any]:
    """Evaluated splits of all subsets, each once, found where mteb finds them."""
    dataset: Any = task.dataset
    splits = itertools.product(task.hf_subsets, task.eval_splits)
    found = [dataset[subset][split] if subset in dataset else dataset[split] for subset, split in splits]
    return list({id(rows): rows for rows in found}.values())


def _searched(rows: Any) -> Iterator[str]:
    """Queries that are judged and documents that are relevant to one, these with their titles, as mteb encodes them."""
    judged = rows["relevant_docs"]
    relevant = {name for scores in judged.values() for name, score in scores.items() if score > 0}
    for batch in _batches(_named(rows["queries"], judged)):
        yield from _strings(batch["text"])
    for batch in _batches(_named(rows["corpus"], relevant)):
        titles = batch.get("title", [""] * len(batch["text"]))
        yield from (f"{title or ''} {text}".strip() for title, text in zip(titles, batch["text"], strict=True))


def _named(rows: Dataset, names: Container[str]) -> Dataset:
    return rows.select([place for place, name in enumerate(rows["id"]) if name in names])


def _batches(rows: Dataset) -> Iterator[Any]:
    yield from rows.iter(batch_size=BATCH_ROWS)


def _strings(value: Any) -> Iterator[str]:
    """Every string in lists and dictionaries, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _strings(one)
