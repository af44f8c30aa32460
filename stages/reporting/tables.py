"""The report's tables as plain rows, ready for the template: results, differences, compression, weights."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from stages.reporting import number_format as formats
from stages.reporting.verdicts import difference_verdict


class Task(NamedTuple):
    """A task of the evaluation, its main metric and how to explain it in one line."""

    key: str
    metric: str
    metric_name: str
    second: str | None
    second_name: str | None
    question: str


TASKS = (
    Task(
        "retrieval",
        "ndcg_at_10",
        "nDCG@10",
        "recall_at_100",
        "recall@100",
        "Does a query find its document among all documents of the test split?",
    ),
    Task(
        "text-matching",
        "spearman",
        "Spearman",
        None,
        None,
        "Do similarities of text pairs come in the same order as the scores people gave?",
    ),
    Task("clustering", "v_measure", "V-measure", None, None, "Do texts of one topic fall into one cluster?"),
    Task(
        "classification",
        "accuracy",
        "accuracy",
        None,
        None,
        "Does a logistic regression on the embeddings name the right label?",
    ),
)
UNSEEN = Task(
    "unseen",
    "ndcg_at_10",
    "nDCG@10",
    "recall_at_100",
    "recall@100",
    "Retrieval again, from sources that nothing was trained on: how far does it carry?",
)
MODELS = {
    "teacher": "Teacher",
    "bm25": "BM25, word matching",
    "static": "Static, token vectors only",
    "base": "Base, stage 1",
    "continued": "Base, trained on",
}
JUDGED = (*TASKS, UNSEEN)
REFERENCES = ("teacher", "bm25", "static")  # what the student is compared with


class Cell(NamedTuple):
    """One score, an optional second metric under it, and whether it is the best of the student's rows."""

    value: float | None
    second: float | None
    is_best: bool


class Interval(NamedTuple):
    """A share or difference with the ends of its 95 % interval, where it has one."""

    figure: float | None
    low: float | None
    high: float | None


class Row(NamedTuple):
    """One model of a results table; the first cell is the mean over sources."""

    label: str
    cells: list[Cell]
    of_teacher: Interval


class Table(NamedTuple):
    """The results of one task: columns are `mean` and the sources, groups are (heading, rows)."""

    task: Task
    columns: list[str]
    groups: list[tuple[str, list[Row]]]


class Difference(NamedTuple):
    """One task's adapter against the base."""

    task: str
    base: float | None
    adapter: float | None
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    verdict: str


class Kept(NamedTuple):
    """One embedding size: score, share of the full float embedding's score, bytes of one vector."""

    value: float | None
    share: Interval
    num_bytes: int


def main_score(metrics: Mapping[str, Any], task: Task, model: str) -> float | None:
    """The mean over sources of the task's main metric, or None where the model was not measured."""
    mean = metrics.get(task.key, {}).get(model, {}).get("mean") or {}
    value = mean.get(task.metric)
    return float(value) if value is not None else None


def ratio(value: float | None, whole: float | None) -> float | None:
    """Value / whole, or None where either is missing or the whole is zero."""
    return value / whole if value is not None and whole else None


def results(metrics: Mapping[str, Any]) -> list[Table]:
    """A results table for each task that was measured, retrieval from unseen sources last."""
    return [_table(metrics, task) for task in JUDGED if metrics.get(task.key)]


def _table(metrics: Mapping[str, Any], task: Task) -> Table:
    """Group the models of one task into references and student."""
    by_model = metrics[task.key]
    columns = list(dict.fromkeys(["mean", *(name for scores in by_model.values() for name in scores)]))
    students = [model for model in by_model if model not in REFERENCES]
    best = {column: _best(by_model, students, column, task.metric) for column in columns}
    groups = (("For comparison", REFERENCES), ("Student", students))
    teacher = main_score(metrics, task, "teacher")

    def row(model: str) -> Row:
        scores, marks = by_model[model], best if model in students else {}
        cells = [_cell(scores.get(column), task, marks.get(column)) for column in columns]
        known = (_comparisons(metrics, task).get("of_teacher") or {}).get(model) or {}
        share = None if model == "teacher" else ratio(cells[0].value, teacher)
        return Row(model_label(model), cells, Interval(share, known.get("low"), known.get("high")))

    present = ((heading, [row(model) for model in models if model in by_model]) for heading, models in groups)
    return Table(task, columns, [(heading, rows) for heading, rows in present if rows])


def model_label(model: str) -> str:
    """A model's name for people; what is neither teacher, baseline nor base is an adapter."""
    return MODELS.get(model, f"Adapter, {formats.words(model).lower()}")


def _best(by_model: Mapping[str, Any], models: Sequence[str], column: str, metric: str) -> float | None:
    """The highest score of a column among the given models; no best where there is nothing to compare."""
    values = [(by_model[model].get(column) or {}).get(metric) for model in models]
    known = [value for value in values if value is not None]
    return max(known) if len(known) > 1 else None


def _cell(scores: Mapping[str, float] | None, task: Task, best: float | None) -> Cell:
    """One cell; best is None outside the student's rows."""
    scores = scores or {}
    value = scores.get(task.metric)
    return Cell(value, scores.get(task.second) if task.second else None, value is not None and value == best)


def _comparisons(metrics: Mapping[str, Any], task: Task) -> Mapping[str, Any]:
    return (metrics.get("comparisons") or {}).get(task.key) or {}


def over(metrics: Mapping[str, Any], task: Task, other: str) -> Mapping[str, float]:
    """The task's adapter minus another model: `figure`, `low`, `high`, `p`; empty where they were not compared."""
    return (_comparisons(metrics, task).get("over") or {}).get(other) or {}


def differences(metrics: Mapping[str, Any]) -> list[Difference]:
    """The adapter-over-base table."""
    return [_difference(metrics, task, row) for task in JUDGED if (row := over(metrics, task, "base"))]


def _difference(metrics: Mapping[str, Any], task: Task, row: Mapping[str, float]) -> Difference:
    difference, low, high = row.get("figure"), row.get("low"), row.get("high")
    ours = "retrieval" if task is UNSEEN else task.key
    base, adapter = (main_score(metrics, task, model) for model in ("base", ours))
    verdict = difference_verdict(difference, low, high)
    label = f"{formats.words(task.key)}, {task.metric_name}"
    return Difference(label, base, adapter, difference, low, high, row.get("p"), verdict)


def against(metrics: Mapping[str, Any]) -> list[tuple[str, dict[str, Interval]]]:
    """Each task's adapter minus every other model, by model."""
    rows = []
    for task in JUDGED:
        found = {model: over(metrics, task, model) for model in MODELS}
        cells = {model: Interval(row["figure"], row.get("low"), row.get("high")) for model, row in found.items() if row}
        rows += [(formats.words(task.key), cells)] if cells else []
    return rows


def compression(metrics: Mapping[str, Any]) -> tuple[list[str], list[tuple[int, list[Kept]]]]:
    """The quantisation table: its precisions, and for each dimension, largest first, what each keeps."""
    curves: Mapping[str, Mapping[str, float]] = metrics.get("compression") or {}
    dimensions = sorted({int(dimension) for curve in curves.values() for dimension in curve}, reverse=True)
    full = curves.get("float32", {}).get(str(dimensions[0])) if dimensions else None

    def kept(precision: str, dimension: int) -> Kept:
        value = curves[precision].get(str(dimension))
        known = ((metrics.get("compression_kept") or {}).get(precision) or {}).get(str(dimension)) or {}
        share = Interval(ratio(value, full), known.get("low"), known.get("high"))
        return Kept(value, share, vector_bytes(precision, dimension))

    rows = [(dimension, [kept(precision, dimension) for precision in curves]) for dimension in dimensions]
    return list(curves), rows


def vector_bytes(precision: str, dimension: int) -> int:
    """Bytes of one stored document: 32, 8 or 1 bits a dimension, however it is searched."""
    bits = {"float32": 32, "int8": 8, "binary": 1}[precision.partition("_")[0]]
    return -(-dimension * bits // 8)
