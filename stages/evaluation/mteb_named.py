"""Tasks that mteb knows, by their names or those of its benchmarks, from the hub or from folders in its format."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mteb import get_benchmark, get_tasks
from mteb.abstasks import AbsTask

from stages.corpus.locations import files_digest
from stages.evaluation.benchmark import Table, benchmark
from stages.evaluation.contamination import Contamination
from stages.evaluation.mteb_models import MtebModel
from stages.evaluation.mteb_rows import loaded, texts_of


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


def named_scores(
    models: Mapping[str, MtebModel], tasks: Mapping[str, AbsTask], cache: Path, contamination: Contamination
) -> Table:
    """`benchmark` of tasks, with the rows of one in memory at a time.

    Args:
        contamination: gets their texts.
    """
    table: Table = {}
    for name, task in tasks.items():
        with loaded(task):
            table |= benchmark(models, {name: task}, cache)
            contamination.add(name, texts_of(task))
    return table


def _read_from(task: AbsTask, folder: Path) -> None:
    """Have a task read its rows from a local folder, and know it by the digest of what is there."""
    here = folder / Path(task.metadata.dataset["path"]).name
    if not here.is_dir():
        raise FileNotFoundError(f"evaluate.mteb.folder: {here} is missing; {task.metadata.name} reads its rows there")
    rows = files_digest(sorted(path for path in here.rglob("*") if path.is_file()))
    dataset = {**task.metadata.dataset, "path": str(here), "revision": rows}
    # A copy: the objects of a task share their class's metadata.
    task.metadata = task.metadata.model_copy(update={"dataset": dataset})
