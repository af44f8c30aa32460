"""What `stillhouse new` says about files: what was understood, with the evidence, and what to expect."""

from collections.abc import Sequence

from stages.inspection.columns import MAX_LABELS, unnamed_labels
from stages.inspection.draft import START_SECONDS, Sizes
from stages.inspection.reading import Reading
from stages.inspection.statistics import TableFacts
from stages.recipe.fields import TASKS, Task


def about_files(reading: Reading, facts: TableFacts) -> list[str]:
    """Say how the files are read, what each column is and why, and which rows are usable."""
    names = ", ".join(str(file) for file in reading.files[:3]) + (", ..." if len(reading.files) > 3 else "")
    lines = [f"{names}: {reading.description}"]
    for role, column in reading.roles.columns.items():
        about = reading.columns.get(column)
        seen = "" if about is None else f", {about.distinct} distinct of {about.filled} looked at"
        lines.append(f"{role}: column {column}, {reading.roles.reasons[role]}{seen}")
    if "scale" in reading.options:
        lines[-1] += f", {min(facts.scores):g} to {max(facts.scores):g} on a scale to {reading.options['scale']:g}"
    if reading.roles.negatives:
        lines.append(f"negatives: {', '.join(reading.roles.negatives)}, by name")
    if reading.columns and not any("name" in why or "given" in why for why in reading.roles.reasons.values()):
        names = ", ".join(reading.columns)
        lines.append(f"no column has a name that is known ({names}); if this is a row, put a line of names above it")
    lacking = {"labelled": " or a label", "scored": " or a score"}.get(reading.roles.kind, "")
    repeats = f"{facts.repeated} repeat a text, {facts.empty} lack one{lacking}, {facts.unreadable} cannot be read"
    return [*lines, f"rows: {facts.rows:,}, of which {facts.kept:,} usable; {repeats}"]


def lacks_of_tasks(reading: Reading, is_splittable: bool) -> dict[Task, str]:
    """Return for each task what the data lacks for it; empty where it suffices."""
    kind, is_labelled = reading.roles.kind, "label" in reading.roles.columns
    candidates = unnamed_labels(reading.columns, reading.roles.columns)
    labels = f"no column of 2 to {MAX_LABELS} labels that repeat"
    labels += f"; --label {candidates[0]!r} would name one" if candidates else ""
    if is_labelled:
        labels = "" if is_splittable else "too few rows of a second label for training, dev and test"
    return {
        "retrieval": "" if kind == "pairs" else "no questions with answers",
        "text-matching": "" if kind == "scored" or reading.is_alike else "no scored pairs",
        "clustering": labels,
        "classification": labels,
    }


def about_tasks(tasks: Sequence[Task], lacks: dict[Task, str], is_measured: bool) -> str:
    """Say which tasks are trained, and why others are not."""
    left_out = ", ".join(f"{task} ({lacks[task] or 'not wanted'})" for task in TASKS if task not in tasks)
    unmeasured = "" if is_measured else "; text-matching is trained, but not measured without scores"
    return f"tasks: {', '.join(tasks)}" + (f"; not {left_out}" if left_out else "") + unmeasured


def about_tokens(tokens: Sequence[int], planned: Sizes) -> str:
    """Say how long the documents are, and how many of them are cut."""
    ordered = sorted(tokens)
    half, most = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.95)]
    read = planned.values["max_tokens"]
    cut = f"; {planned.cut:.0%} are longer, and their ends are not read" if planned.cut >= 0.01 else ""
    return f"tokens of a document: half have at most {half}, 95 % at most {most}; {read} are read{cut}"


def expectations(planned: Sizes, facts: TableFacts, minutes: float) -> list[str]:
    """Say how the rows are split, how long a build takes, and how sure its figures will be."""
    test, lines = (
        planned.splits["test"],
        ["splits: " + ", ".join(f"{rows} {name}" for name, rows in planned.splits.items())],
    )
    if planned.values["max_rows"]:
        most = planned.values["max_rows"]
        lines.append(f"the build reads {most:,} of {facts.kept:,} rows in {minutes:.0f} minutes; --minutes raises that")
    late = planned.minutes > minutes + 0.5
    least = f"; starts, evaluation and release alone take {START_SECONDS / 60:.1f}" if late else ""
    lines.append(f"expected time: {planned.minutes:.0f} minutes on two quiet cores, more on a busy machine{least}")
    if test == 0:
        return [*lines, "quality: nothing is held out, so the report cannot say how good the model is"]
    lines.append(
        f"quality: {test} test rows tell a score of 0 to 100 to about +-{min(50, 70 / test**0.5):.0f} points"
        + ("; with so few rows, expect the teacher's quality at best" if planned.splits["train"] < 100 else "")
    )
    return lines
