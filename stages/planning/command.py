"""The command `stillhouse plan`: what a build of a recipe will take, before any of it runs.

It counts the stages that run a model on many texts; curate, mine, quantize, evaluate and promote are left out.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from stages.planning.costs import START_SECONDS, StageCost, disk_bytes, stage_cost
from stages.planning.devices import Device, DeviceName, find_device
from stages.planning.measured import measured_seconds
from stages.planning.models import planned_student, planned_teacher
from stages.planning.phases import TrainingPhases, embed_phase
from stages.planning.questions import PlannedQuestions, planned_questions
from stages.planning.sources import SourceTexts, TextLengths, read_sources
from stages.recipe.paths import LINEAGE, RECIPE
from stages.recipe.recipe import Recipe, read
from stages.teachers.teacher_inputs import teacher_inputs
from stages.tracking.address import tracking_uri


@dataclass(frozen=True)
class OutOfReach:
    """What stands for text and models that are not on this machine.

    Attributes
    ----------
    model
        Folder with config and tokenizer that stands for a model, as NAME=FOLDER.
    rows
        Size of a source that is not read, as SOURCE=N; other sources that are not curated have their `max_rows`.
    tokens_per_text
        Tokens of each text of the sources that are not read.
    """

    model: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    tokens_per_text: int | None = None


def plan(
    recipe: Path = RECIPE,
    *,
    device: DeviceName = "here",
    utilisation: float | None = None,
    given: Annotated[OutOfReach, Parameter(name="*")] = OutOfReach(),
    as_json: Annotated[bool, Parameter(name="--json")] = False,
    check: bool = False,
) -> None:
    """Estimate what a build of a recipe takes: tokens, FLOPs, hours, memory and disk, stage by stage.

    Parameters
    ----------
    recipe
        Recipe to plan.
    device
        What each process runs on; on `here`, this machine, real passes are timed.
    utilisation
        Share of the device's peak to count on, instead of timed passes or the table's share.
    as_json
        Print JSON.
    check
        Print the seconds that the last build took beside the plan, and their ratio.
    """
    settings, folders = read(recipe), dict(_pairs(given.model))
    target = find_device(device, settings.engine, utilisation)
    rows = {name: int(number) for name, number in _pairs(given.rows)}
    questions = planned_questions(
        settings.curate.sources, rows, lambda: planned_student(settings.distill, folders).tokenizer()
    )
    if questions and not as_json:  # at once: curate, which the rest of a plan may ask for, would send the requests
        print(question_table(questions), end="\n\n")
    sources = read_sources(settings.curate, settings.seed, rows, given.tokens_per_text)
    costs, disk = plan_costs(settings, sources, target, folders)
    if as_json:
        rows_by_source = {name: source.rows for name, source in sources.items()}
        found = {"device": target, "phases": costs, "disk": disk, "sources": rows_by_source, "questions": questions}
        print(json.dumps(found, indent=2, default=asdict))
        return
    seconds = measured_seconds(LINEAGE, tracking_uri()) if check else {}
    share = "timed passes" if target.share is None else f"{target.share:.0%} of it counted on"
    print(f"{settings.name}, {settings.engine.processes} process(es) on {target.name}: peak {target.peak / 1e12:.3g}")
    print(f"TFLOP/s in {settings.engine.precision}, {share}, {START_SECONDS:.0f} s a stage to start")
    sizes = ", ".join(f"{name} {_bytes(size)}" for name, size in disk.items())
    print("", cost_table(costs, target, seconds), f"\ndisk: {sizes}\n", source_table(sources), sep="\n")


def _pairs(values: Sequence[str]) -> Iterator[tuple[str, str]]:
    for value in values:
        name, equals, given = value.partition("=")
        if not equals:
            raise ValueError(f"got {value!r}, expected NAME=VALUE")
        yield name, given


def plan_costs(
    recipe: Recipe, sources: Mapping[str, SourceTexts], device: Device, folders: Mapping[str, str]
) -> tuple[list[StageCost], dict[str, float]]:
    """Return the cost of every stage that is counted, in order, and the bytes that the build leaves.

    Args:
        folders: folders that stand for models out of reach, by the models' names in the recipe.
    """
    embed, engine, frozen = recipe.embed, recipe.engine, recipe.distill.freeze_token_embeddings
    if embed.teacher.kind == "endpoint":
        raise ValueError("embed.teacher: got an endpoint, expected a model whose work can be counted")
    pooling = embed.teacher.pooling if embed.teacher.kind == "transformer" else "mean"
    teacher = planned_teacher(embed.teacher.path, pooling, folders)
    student = planned_student(recipe.distill, folders)
    inputs = teacher_inputs(recipe.curate, recipe.adapt, recipe.evaluate)
    reading = embed_phase(inputs, embed, TextLengths(sources, teacher.tokenizer, embed.prompts))
    phases = TrainingPhases(TextLengths(sources, student.tokenizer, recipe.distill.prompts), engine.processes)
    trained = [phases.distill(recipe.distill), *phases.adapters(recipe.adapt)]
    if recipe.extend.training.steps:
        trained.insert(1, phases.extend(recipe.extend))
    costs = [stage_cost(reading, teacher, frozen, engine, device, 1 if embed.ray is None else embed.ray.workers)]
    costs += [stage_cost(phase, student, frozen, engine, device, engine.processes) for phase in trained]
    with_continued = trained[0], *trained  # the distill stage trains two students
    checkpoints = [student.trained_parameters(phase.rank, frozen) for phase in with_continued]
    return costs, disk_bytes(costs[0].texts, teacher.config.hidden_size, student.parameters, checkpoints)


def cost_table(costs: Sequence[StageCost], device: Device, measured: Mapping[str, float]) -> str:
    """Return a line for each stage and their sum, beside measured seconds; memory that the device lacks is marked."""
    lines = [("stage", "texts", "tokens", "TFLOP", "computed", "time", "measured", "device-h", "memory", "activations")]
    for cost in costs:
        memory, seconds = sum(cost.memory.values()), measured.get(cost.stage)
        lines.append(
            (
                cost.stage,
                f"{cost.texts:,.0f}",
                f"{cost.tokens:,.0f}",
                f"{cost.flops / 1e12:,.4g}",
                f"{cost.computed / 1e12:,.4g}",
                _time(cost.seconds),
                f"{_time(seconds)}, ratio {cost.seconds / seconds:.2f}" if seconds else "",
                f"{cost.device_hours:.3g}",
                _bytes(memory) + (" does not fit" if memory > device.memory else ""),
                _bytes(cost.memory["activations"]),
            )
        )
    hours = f"{sum(cost.device_hours for cost in costs):.3g}"
    lines.append(("sum", "", "", "", "", _time(sum(cost.seconds for cost in costs)), "", hours, "", ""))
    return _aligned(lines)


def source_table(sources: Mapping[str, SourceTexts]) -> str:
    """Return a line for each source: its rows by split, and how they are known."""
    lines: list[tuple[str, ...]] = [("source", "train", "dev", "test", "")]
    for name, source in sources.items():
        known = "curated" if source.tokens is None else f"given, {source.tokens} tokens a text"
        lines.append((name, *(f"{source.rows[split]:,}" for split in ("train", "dev", "test")), known))
    return _aligned(lines)


def question_table(questions: Mapping[str, PlannedQuestions]) -> str:
    """Return a line for each source of made questions: what its language model is still asked."""
    lines = [("questions", "requests", "answered", "prompt tokens", "answer tokens", "cost")]
    for name, asked in questions.items():
        cost = "" if asked.cost is None else f"at most {asked.cost:,.2f}"
        counts = f"{asked.requests:,}", f"{asked.answered:,}", f"{asked.prompt_tokens:,}"
        lines.append((name, *counts, f"at most {asked.answer_tokens:,}", cost))
    return _aligned(lines)


def _aligned(lines: Sequence[tuple[str, ...]]) -> str:
    """Align the first column on the left and the others on the right; a column without text is left out."""
    columns = [column for column in zip(*lines, strict=True) if any(column[1:])]
    padded = [
        [cell.rjust(max(map(len, column))) if number else cell.ljust(max(map(len, column))) for cell in column]
        for number, column in enumerate(columns)
    ]
    return "\n".join("  ".join(cells).rstrip() for cells in zip(*padded, strict=True))


def _bytes(size: float) -> str:
    return f"{size / 2**20:.0f} MiB" if size < 2**30 else f"{size / 2**30:,.1f} GiB"


def _time(seconds: float) -> str:
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 36_000 else f"{seconds / 3600:,.1f} h"
