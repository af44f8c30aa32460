"""The evaluation report: one self-contained HTML page for the person who signs a release off.

All inputs are plain dictionaries. An optional value that is missing is shown as a dash, or its section is left out.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from stages.reporting import report_tables, verdicts
from stages.reporting.figures import over_base_figure, truncation_figure
from stages.reporting.held_out import held_out_questions
from stages.reporting.long_document_charts import length_charts
from stages.reporting.number_format import compact, fixed, percent, points, score, words
from stages.reporting.page import render
from stages.reporting.report_tables import MEASURED, TASKS, Metrics, Task, main_score, over, ratio
from stages.reporting.training_curves import Rows, last_dev_scores, loss_terms, training_figure


class Tile(NamedTuple):
    """One headline number."""

    label: str
    value: str
    unit: str
    note: str


def render_report(metrics: dict[str, Any], curves: Mapping[str, Rows], about: dict[str, Any]) -> str:
    """Render the report; the same inputs give the same bytes.

    Args:
        metrics: scores of 0 to 1: `summary`, an entry for each task, `unseen`, `origins`, `long`, `comparisons`,
            `compression`, `compression_kept`, `weights_int8`, `mteb` (by task and model), `mteb_overlap` (by task).
        curves: training phase to its logged rows, each with `step` and any of the losses and `dev*` scores.
        about: `name`, `created`, `git_sha`, `recipe`, `teacher`, `student`, `sources`, `notes`, and the `queries` to
            read, by retrieval source. Promote adds `gates`, their `mode`, the `champion`, and a text on its `index`.

    Returns:
        An HTML document that requests nothing from anywhere.
    """
    gates = verdicts.gate_rows(about.get("gates") or [])
    precisions, compression = report_tables.compression(metrics)
    over_base = {task.key: change for task in MEASURED if (change := over(metrics, task, "base"))}
    curve_of_dimensions, teacher = metrics.get("compression"), main_score(metrics, TASKS[0], "teacher")
    terms = loss_terms(curves.values())
    return render(
        "report.html.j2",
        name=about.get("name") or "Evaluation report",
        about=about,
        introduction=_introduction(about),
        gates=gates,
        verdict=verdicts.verdict(gates, about.get("mode")),
        tally=verdicts.tally(gates),
        changes=verdicts.changes(about.get("gates") or []),
        models=report_tables.MODELS,
        against=report_tables.against(metrics),
        held_out=held_out_questions(metrics, about.get("queries") or {}),
        origins=_several_origins(metrics.get("origins") or {}),
        tiles=_tiles(metrics, about),
        differences=report_tables.differences(metrics),
        over_base_figure=over_base_figure(over_base) if over_base else None,
        results=report_tables.results(metrics),
        queries=about.get("queries") or {},
        mteb=metrics.get("mteb") or {},
        mteb_models=list(dict.fromkeys(model for scores in (metrics.get("mteb") or {}).values() for model in scores)),
        mteb_overlap=metrics.get("mteb_overlap") or {},
        long=length_charts(metrics.get("long") or {}),
        precisions=precisions,
        compression=compression,
        truncation_figure=truncation_figure(curve_of_dimensions, teacher) if curve_of_dimensions else None,
        weights={task: row for task, row in (metrics.get("weights_int8") or {}).items() if "megabytes" in row},
        training=[_phase(phase, rows, terms) for phase, rows in curves.items()],
        sources=about.get("sources") or [],
        recipe=[(name, list(_leaves(values, name))) for name, values in (about.get("recipe") or {}).items()],
        notes=about.get("notes") or [],
    )


def _several_origins(origins: Metrics) -> Metrics:
    """Return the figures by origin of a question where any source has questions of several origins."""
    return origins if any(len(by_origin) > 1 for by_origin in origins.values()) else {}


def _introduction(about: Metrics) -> str:
    """Describe the model in one sentence, from the facts that are known."""
    student, teacher = about.get("student") or {}, about.get("teacher") or {}
    parts = ["A text embedding model"]
    if student.get("parameters"):
        parts.append(f"with {compact(student['parameters'])} parameters")
    if student.get("architecture"):
        layers = f"{student['layers']}-layer " if student.get("layers") is not None else ""
        parts.append(f"({layers}{student['architecture']}, {student.get('pooling') or 'unknown'} pooling)")
    if teacher.get("name"):
        parts.append(f"distilled from {teacher['name']}")
    return f"{' '.join(parts)}, with {_adapters(student.get('tasks'))}."


def _adapters(tasks: Sequence[str] | None) -> str:
    """Name the tasks that the student has adapters for; None where they are not known."""
    if tasks is None or len(tasks) == len(TASKS):
        return "an adapter for each task"
    *others, last = (words(task).lower() for task in tasks)
    return f"adapters for {', '.join(others)} and {last}" if others else f"an adapter for {last}"


def _tiles(metrics: Metrics, about: Metrics) -> list[Tile]:
    """The headline numbers: a tile for each measured task, then sizes."""
    measured = [task for task in TASKS if main_score(metrics, task, task.key) is not None]
    return [_task_tile(metrics, task) for task in measured] + _size_tiles(metrics, about)


def _task_tile(metrics: Metrics, task: Task) -> Tile:
    """The share of the teacher's score that the adapter reaches, and its gain over the base."""
    adapter, teacher = (main_score(metrics, task, model) for model in (task.key, "teacher"))
    change = over(metrics, task, "base")
    note = f"{points(change.figure)} points over the base" if change and change.figure is not None else ""
    retention = (metrics.get("summary") or {}).get(f"{task.key.replace('-', '_')}_retention")
    share = retention if retention is not None else ratio(adapter, teacher)
    if share is None:
        return Tile(words(task.key), score(adapter), task.metric_name, note)
    return Tile(words(task.key), percent(share), f"of the teacher's {task.metric_name}", note)


def _size_tiles(metrics: Metrics, about: Metrics) -> list[Tile]:
    """Parameters compared with the teacher's, and the int8 file compared with the float file."""
    student, teacher = about.get("student") or {}, about.get("teacher") or {}
    tiles = []
    if student.get("parameters"):
        share = ratio(student["parameters"], teacher.get("parameters"))
        unit = f"parameters, {percent(share)} of the teacher's" if share is not None else "parameters"
        notes = [f"{student['dimensions']} dimensions"] if student.get("dimensions") else []
        if student.get("adapter_parameters"):
            notes.append(f"plus {compact(student['adapter_parameters'])} for each adapter")
        tiles.append(Tile("Size", compact(student["parameters"]), unit, "; ".join(notes)))
    files = [row for row in (metrics.get("weights_int8") or {}).values() if row.get("megabytes") is not None]
    if files:
        largest = max(files, key=lambda row: float(row["megabytes"]))
        int8, float32 = (f"{fixed(largest.get(key))} MB" for key in ("megabytes", "float_megabytes"))
        tiles.append(Tile("Int8 weights", int8, "for the base with one adapter", f"{float32} in float"))
    return tiles


def _phase(phase: str, rows: Rows, terms: list[str]) -> dict[str, Any]:
    """A training phase: its figure, its steps and its last development scores."""
    steps = max((int(row["step"]) for row in rows), default=0)
    return {"figure": training_figure(phase, rows, terms), "steps": steps, "dev": last_dev_scores(rows)}


def _leaves(values: Any, prefix: str) -> list[tuple[str, str]]:
    """Dotted name and JSON text of every value below `prefix`."""
    if isinstance(values, Mapping) and values:
        return [leaf for key, value in values.items() for leaf in _leaves(value, f"{prefix}.{key}")]
    text = values if isinstance(values, str) else json.dumps(values, ensure_ascii=False, default=str)
    return [(prefix, text)]
