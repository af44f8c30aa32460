"""A rebuild in Prefect's UI: a page in Markdown and a table of its stages."""

from collections.abc import Mapping, Sequence
from typing import Any

from flows.champion import Champion, links
from flows.pipeline import Stage
from flows.stage_task import StageResult

COLUMNS = ("stage", "outcome", "seconds", "planned device-hours", "devices")


def page(
    title: str,
    stages: Sequence[Stage],
    results: Sequence[StageResult],
    planned: Mapping[str, float],
    promoted: Mapping[str, Any] | None = None,
    figures: Mapping[str, float | None] | None = None,
    champion: Champion | None = None,
) -> str:
    """Render a rebuild in Markdown.

    Args:
        title: the result in one sentence.
        planned: device-hours of each stage according to the plan.
        promoted: data/promoted/version.json of this rebuild, where it has a version.
        figures: figures of its evaluation.
        champion: version that was served when the rebuild began.
    """
    lines = [title, "", "## Stages", "", f"| {' | '.join(COLUMNS)} | why |"]
    lines += ["| --- | --- | ---: | ---: | --- | --- |"]
    reasons = {stage.name: _reasons(stage, results) for stage in stages}
    lines += [f"| {' | '.join(map(str, row.values()))} | {reasons[row['stage']]} |" for row in table(results, planned)]
    if promoted is not None:
        lines += ["", *_gates(promoted)]
        lines += ["", " · ".join(links(promoted))] if links(promoted) else []
    if figures:
        lines += ["", *_comparison(figures, champion)]
    return "\n".join(lines)


def _reasons(stage: Stage, results: Sequence[StageResult]) -> str:
    ran = [result.stage for result in results if result.stage in stage.upstream and result.outcome == "run"]
    return "; ".join([*stage.reasons, *(f"{name} ran" for name in ran)]).replace("|", "\\|")


def _gates(promoted: Mapping[str, Any]) -> list[str]:
    heading = f"## {promoted['name']} version {promoted['version']}: {promoted['validation_status']}"
    lines = [f"{heading} ({', '.join(promoted['aliases'])})", "", "| gate | figure | limit | verdict |"]
    lines += ["| --- | ---: | --- | --- |"]
    for gate in promoted["gates"]:
        figure = "" if gate["figure"] is None else f"{gate['figure']:.4f}"  # the release has no such figure
        lines.append(f"| {gate['metric']} | {figure} | {gate['limit']} | {gate['verdict']} |")
    return lines


def _comparison(figures: Mapping[str, float | None], champion: Champion | None) -> list[str]:
    if champion is None:
        return ["There was no champion to compare with."]
    lines = [f"## Against the champion, version {champion.version}", "", "| figure | champion | now | difference |"]
    lines += ["| --- | ---: | ---: | ---: |"]
    for name, now in figures.items():
        if name in champion.figures and now is not None:  # None is undefined
            before = champion.figures[name]
            lines.append(f"| {name} | {before:.4f} | {now:.4f} | {now - before:+.4f} |")
    return lines


def table(results: Sequence[StageResult], planned: Mapping[str, float]) -> list[dict[str, Any]]:
    """List the stages as rows of Prefect's table artifact."""
    rows = [
        (
            one.stage,
            one.outcome,
            round(one.seconds, 1),
            f"{planned[one.stage]:.3g}" if one.stage in planned else "",
            ", ".join(one.devices),
        )
        for one in results
    ]
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows]
