"""The evaluation report: one self-contained HTML page for the person who signs a release off.

What is known arrives as plain dictionaries; anything optional may be missing and is then shown as a dash
or its section left out.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from stages.reporting import figures, tables, verdicts
from stages.reporting import long_document_charts as lengths
from stages.reporting import number_format as formats
from stages.reporting.page import render

Rows = Sequence[Mapping[str, Any]]


class Tile(NamedTuple):
    """One headline number."""

    label: str
    value: str
    unit: str
    note: str


def render_report(metrics: dict[str, Any], curves: Mapping[str, Rows], about: dict[str, Any]) -> str:
    """Render the report; the same inputs give the same bytes.

    Args:
        metrics: Scores of 0 to 1: `summary`, an entry a task, `unseen`, `long`, `comparisons`, `compression`,
            `compression_kept`, `weights_int8`, `mteb` (by task and model), `mteb_overlap` (by task).
        curves: Training phase to its logged rows, each with `step` and any of the losses and `dev*` metrics.
        about: `name`, `created`, `git_sha`, `recipe`, `teacher`, `student`, `sources`, `notes`, and by
            retrieval source the `queries` to read; of promote: `gates`, their `mode`, the `champion` and what is to
            be said of its `index`.

    Returns:
        An HTML document that requests nothing from anywhere.
    """
    gates = verdicts.gates(about.get("gates") or [])
    precisions, compression = tables.compression(metrics)
    return render(
        "report.html.j2",
        name=about.get("name") or "Evaluation report",
        about=about,
        introduction=_introduction(about),
        gates=gates,
        verdict=verdicts.verdict(gates, about.get("mode")),
        tally=verdicts.tally(gates),
        changes=verdicts.changes(about.get("gates") or []),
        others=tables.MODELS,
        against=tables.against(metrics),
        tiles=_tiles(metrics, about),
        differences=tables.differences(metrics),
        over_base_figure=_over_base_figure(metrics),
        results=tables.results(metrics),
        queries=about.get("queries") or {},
        mteb=metrics.get("mteb") or {},
        mteb_overlap=metrics.get("mteb_overlap") or {},
        long=lengths.long_tasks(metrics.get("long") or {}),
        precisions=precisions,
        compression=compression,
        truncation_figure=_truncation_figure(metrics),
        weights=metrics.get("weights_int8") or {},
        training=[_phase(phase, rows, figures.loss_terms(curves.values())) for phase, rows in curves.items()],
        sources=about.get("sources") or [],
        recipe=_recipe(about.get("recipe") or {}),
        notes=about.get("notes") or [],
    )


def _introduction(about: Mapping[str, Any]) -> str:
    """What the model is, in one sentence made of what is known."""
    student, teacher = about.get("student") or {}, about.get("teacher") or {}
    parts = ["A text embedding model"]
    if student.get("architecture"):
        layers = f"{student['layers']}-layer " if student.get("layers") is not None else ""
        parts.append(f"({layers}{student['architecture']}, {student.get('pooling') or 'unknown'} pooling)")
    if student.get("parameters"):
        parts.append(f"of {formats.compact(student['parameters'])} parameters")
    if teacher.get("name"):
        parts.append(f"distilled from {teacher['name']}")
    return " ".join(parts) + ", with an adapter for each task."


def _tiles(metrics: Mapping[str, Any], about: Mapping[str, Any]) -> list[Tile]:
    """The headline numbers: a tile for each measured task, then size."""
    measured = [task for task in tables.TASKS if tables.main_score(metrics, task, task.key) is not None]
    return [_task_tile(metrics, task) for task in measured] + _size_tiles(metrics, about)


def _task_tile(metrics: Mapping[str, Any], task: tables.Task) -> Tile:
    """How much of the teacher the adapter keeps, and what it adds to the base."""
    adapter, teacher = (tables.main_score(metrics, task, model) for model in (task.key, "teacher"))
    gain = tables.over(metrics, task, "base").get("figure")
    note = f"{formats.points(gain)} points over the base" if gain is not None else ""
    retention = (metrics.get("summary") or {}).get(f"{task.key.replace('-', '_')}_retention")
    share = retention if retention is not None else tables.ratio(adapter, teacher)
    if share is None:
        return Tile(formats.words(task.key), formats.score(adapter), task.metric_name, note)
    return Tile(formats.words(task.key), formats.percent(share), f"of the teacher's {task.metric_name}", note)


def _size_tiles(metrics: Mapping[str, Any], about: Mapping[str, Any]) -> list[Tile]:
    """Parameters against the teacher's, and the int8 file against the float one."""
    student, teacher = about.get("student") or {}, about.get("teacher") or {}
    tiles = []
    if student.get("parameters"):
        share = tables.ratio(student["parameters"], teacher.get("parameters"))
        unit = f"parameters, {formats.percent(share)} of the teacher's" if share is not None else "parameters"
        notes = [f"{student['dimensions']} dimensions"] if student.get("dimensions") else []
        if student.get("adapter_parameters"):
            notes.append(f"plus {formats.compact(student['adapter_parameters'])} for each adapter")
        tiles.append(Tile("Size", formats.compact(student["parameters"]), unit, "; ".join(notes)))
    files = [row for row in (metrics.get("weights_int8") or {}).values() if row.get("megabytes") is not None]
    if files:
        largest = max(files, key=lambda row: float(row["megabytes"]))
        size, note = (f"{formats.fixed(largest.get(key))} MB" for key in ("megabytes", "float_megabytes"))
        tiles.append(Tile("Int8 weights", size, "for base and one adapter", f"{note} in float"))
    return tiles


def _over_base_figure(metrics: Mapping[str, Any]) -> Markup | None:
    over_base = {task.key: tables.over(metrics, task, "base") for task in tables.JUDGED}
    over_base = {task: row for task, row in over_base.items() if row}
    return Markup(figures.over_base_plot(over_base)) if over_base else None


def _truncation_figure(metrics: Mapping[str, Any]) -> Markup | None:
    compression = metrics.get("compression")
    teacher = tables.main_score(metrics, tables.TASKS[0], "teacher")
    return Markup(figures.truncation_curve(compression, teacher)) if compression else None


def _phase(phase: str, rows: Rows, terms: Sequence[str]) -> dict[str, Any]:
    """A training phase: its figure and where its development metric ended."""
    dev = figures.series(rows, "dev")
    return {
        "title": figures.phase_title(phase),
        "figure": Markup(figures.training_curves(phase, rows, terms)),
        "steps": max((int(row["step"]) for row in rows), default=0),
        "dev": dev[-1][1] if dev else None,
    }


def _recipe(recipe: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """The recipe by section, each value under its dotted name."""
    return [(section, list(_flat(values, section))) for section, values in recipe.items()]


def _flat(values: Any, prefix: str) -> list[tuple[str, str]]:
    """Dotted name and JSON text of every leaf."""
    if isinstance(values, Mapping) and values:
        return [leaf for key, value in values.items() for leaf in _flat(value, f"{prefix}.{key}")]
    text = values if isinstance(values, str) else json.dumps(values, ensure_ascii=False, default=str)
    return [(prefix, text)]
