"""Tables of the evaluation report as rows for the template: results, differences, compression."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from stages.reporting.number_format import words
from stages.reporting.verdicts import IntervalEstimate

Metrics = Mapping[str, Any]


class Task(NamedTuple):
    """A task of the evaluation: key and main metric in the metrics, the metric's name, and the question it answers."""

    key: str
    metric: str
    metric_name: str
    question: str

    @property
    def second_metric(self) -> str | None:
        """Metric that is shown below the main one: recall@100 for retrieval."""
        return "recall_at_100" if self.metric == "ndcg_at_10" else None


TASKS = (
    Task("retrieval", "ndcg_at_10", "nDCG@10", "Does a query find its document among all documents of the test split?"),
    Task("text-matching", "spearman", "Spearman", "Do similarities of text pairs follow the scores that people gave?"),
    Task("clustering", "v_measure", "V-measure", "Do texts on one topic fall into one cluster?"),
    Task(
        "classification", "accuracy", "accuracy", "Does a logistic regression on the embeddings find the right label?"
    ),
)
UNSEEN = Task("unseen", "ndcg_at_10", "nDCG@10", "Does retrieval also work on sources that nothing was trained on?")
MEASURED = (*TASKS, UNSEEN)
MODELS = {
    "teacher": "Teacher",
    "bm25": "BM25, word matching",
    "static": "Static, token vectors only",
    "base": "Base, stage 1",
    "continued": "Base, trained on",
}
REFERENCES = ("teacher", "bm25", "static")  # models that the student is compared with


class Cell(NamedTuple):
    """A score, the second metric below it, and whether the score is the best of the student's models."""

    value: float | None
    second: float | None
    is_best: bool


class ModelRow(NamedTuple):
    """A model in a table of results; the first cell is the mean over sources."""

    label: str
    cells: list[Cell]
    share_of_teacher: IntervalEstimate


class ResultTable(NamedTuple):
    """Results of one task: the columns are `mean` and the sources, the groups are (heading, rows)."""

    task: Task
    columns: list[str]
    groups: list[tuple[str, list[ModelRow]]]


class Difference(NamedTuple):
    """Scores of a task's base and adapter, and their difference."""

    label: str
    base: float | None
    adapter: float | None
    change: IntervalEstimate


class StoredEmbedding(NamedTuple):
    """A way to store embeddings: score, share of the full float embedding's score, bytes of one vector."""

    value: float | None
    share: IntervalEstimate
    num_bytes: int


def main_score(metrics: Metrics, task: Task, model: str) -> float | None:
    """Mean over sources of the task's main metric; None where the model was not measured."""
    mean = metrics.get(task.key, {}).get(model, {}).get("mean") or {}
    value = mean.get(task.metric)
    return float(value) if value is not None else None


def ratio(value: float | None, whole: float | None) -> float | None:
    """Divide `value` by `whole`; None where either is missing or `whole` is not above 0."""
    return value / whole if value is not None and whole is not None and whole > 0 else None


def results(metrics: Metrics) -> list[ResultTable]:
    """A table of results for each task that was measured."""
    return [_result_table(metrics, task) for task in MEASURED if metrics.get(task.key)]


def _result_table(metrics: Metrics, task: Task) -> ResultTable:
    by_model = metrics[task.key]
    columns = list(dict.fromkeys(["mean", *(column for scores in by_model.values() for column in scores)]))
    students = [model for model in by_model if model not in REFERENCES]
    best = {column: _best_score(by_model, students, column, task.metric) for column in columns}
    teacher, shares = main_score(metrics, task, "teacher"), _comparisons(metrics, task).get("of_teacher") or {}

    def row(model: str) -> ModelRow:
        cells = []
        for column in columns:
            scores = by_model[model].get(column) or {}
            value = scores.get(task.metric)
            is_best = model in students and value is not None and value == best[column]
            cells.append(Cell(value, scores.get(task.second_metric), is_best))
        share = None if model == "teacher" else ratio(cells[0].value, teacher)
        return ModelRow(model_label(model), cells, IntervalEstimate.of(shares.get(model) or {})._replace(figure=share))

    groups = (("For comparison", REFERENCES), ("Student", students))
    present = ((heading, [row(model) for model in models if model in by_model]) for heading, models in groups)
    return ResultTable(task, columns, [(heading, rows) for heading, rows in present if rows])


def model_label(model: str) -> str:
    """Name a model for people; a model that is not in MODELS is an adapter."""
    return MODELS.get(model, f"Adapter, {words(model).lower()}")


def _best_score(by_model: Metrics, models: Sequence[str], column: str, metric: str) -> float | None:
    """Highest score of a column among the models; None where fewer than two were measured."""
    values = [(by_model[model].get(column) or {}).get(metric) for model in models]
    known = [value for value in values if value is not None]
    return max(known) if len(known) > 1 else None


def _comparisons(metrics: Metrics, task: Task) -> Metrics:
    return (metrics.get("comparisons") or {}).get(task.key) or {}


def over(metrics: Metrics, task: Task, model: str) -> IntervalEstimate | None:
    """Score of the task's adapter minus that of another model; None where they were not compared."""
    row = (_comparisons(metrics, task).get("over") or {}).get(model)
    return IntervalEstimate.of(row) if row else None


def differences(metrics: Metrics) -> list[Difference]:
    """The adapter compared with the base, for each task."""
    rows = []
    for task in MEASURED:
        if change := over(metrics, task, "base"):
            base = main_score(metrics, task, "base")
            adapter = main_score(metrics, task, "retrieval" if task is UNSEEN else task.key)
            rows.append(Difference(f"{words(task.key)}, {task.metric_name}", base, adapter, change))
    return rows


def against(metrics: Metrics) -> list[tuple[str, dict[str, IntervalEstimate]]]:
    """The adapter of each task compared with every other model."""
    rows = []
    for task in MEASURED:
        changes = {model: change for model in MODELS if (change := over(metrics, task, model))}
        rows += [(words(task.key), changes)] if changes else []
    return rows


def compression(metrics: Metrics) -> tuple[list[str], list[tuple[int, list[StoredEmbedding]]]]:
    """Precisions, and for each number of dimensions, largest first, the embedding stored in each precision."""
    curves: Mapping[str, Mapping[str, float]] = metrics.get("compression") or {}
    dimensions = sorted({int(dimension) for curve in curves.values() for dimension in curve}, reverse=True)
    full = curves.get("float32", {}).get(str(dimensions[0])) if dimensions else None

    def stored(precision: str, dimension: int) -> StoredEmbedding:
        value = curves[precision].get(str(dimension))
        known = ((metrics.get("compression_kept") or {}).get(precision) or {}).get(str(dimension)) or {}
        share = IntervalEstimate.of(known)._replace(figure=ratio(value, full))
        return StoredEmbedding(value, share, vector_bytes(precision, dimension))

    rows = [(dimension, [stored(precision, dimension) for precision in curves]) for dimension in dimensions]
    return list(curves), rows


def vector_bytes(precision: str, dimension: int) -> int:
    """Bytes of one stored document: 32, 8 or 1 bits a dimension, however it is searched."""
    bits = {"float32": 32, "int8": 8, "binary": 1}[precision.partition("_")[0]]
    return -(-dimension * bits // 8)
