"""The command `stillhouse new`: from a person's own files to a recipe, with what was understood and why."""

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from stages.corpus.languages import text_languages
from stages.corpus.text_length import tokens_of
from stages.inspection.draft import LEAST_ROWS, Sizes, sizes
from stages.inspection.reading import Reading, reading_of, without_label
from stages.inspection.rendering import recipe_values, render, write
from stages.inspection.source_files import bring
from stages.inspection.statistics import TableFacts, languages_of, table_facts
from stages.inspection.teacher import DEFAULT_TEACHER, MULTILINGUAL, teacher_of
from stages.recipe.fields import TASKS, Task
from stages.recipe.paths import RECIPE
from stages.recipe.process_environment import git_environment

SEED = 17
COUNTED_TOKENS = 500  # texts of a sample whose tokens are counted


@dataclass(frozen=True)
class Corrections:
    """Corrections of what is understood.

    Attributes
    ----------
    query
        Column of the question, or of the first text of a scored pair.
    document
        Column of the answer, or of the second text of a scored pair.
    label
        Column of a label.
    score
        Column of a similarity.
    entity
        Column of a thing whose rows belong together in training or in test.
    language
        Language of the texts, such as en or pt-BR.
    encoding
        Encoding of the text, such as cp1252.
    delimiter
        Sign between the values of a row.
    """

    query: str | None = None
    document: str | None = None
    label: str | None = None
    score: str | None = None
    entity: str | None = None
    language: str | None = None
    encoding: str | None = None
    delimiter: str | None = None

    @property
    def columns(self) -> dict[str, str]:
        """Given columns by role."""
        roles = ("query", "document", "label", "score", "entity")
        return {role: value for role in roles if (value := getattr(self, role)) is not None}


@dataclass(frozen=True)
class Wishes:
    """What the build is to be.

    Attributes
    ----------
    tasks
        Tasks to train; without the option, all that the data supports.
    teacher
        Folder or hub id of the teacher.
    minutes
        Minutes that the build may take on two cores; without the option, 5 to 10.
    no_holdout
        Train on the test rows too: nothing is measured.
    name
        Name of the model; without the option, the file's.
    output
        Recipe to write.
    force
        Write over a recipe that differs.
    """

    tasks: tuple[Task, ...] = ()
    teacher: str = DEFAULT_TEACHER
    minutes: float | None = None
    no_holdout: bool = False
    name: str | None = None
    output: Path = RECIPE
    force: bool = False


def new(
    *paths: Path,
    corrections: Annotated[Corrections, Parameter(name="*")] = Corrections(),
    wishes: Annotated[Wishes, Parameter(name="*")] = Wishes(),
) -> None:
    """Write a recipe for your own files, and print what was understood of them, with the evidence.

    Args:
        paths: a table (.csv, .tsv, .json, .jsonl, .parquet), catalogues (.po), a BEIR folder, or a folder of documents.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: the files cannot be understood, or do not suffice.

    Example:
        >>> new(Path("faq.csv"))
    """
    if not paths:
        raise ValueError("expected a file or a folder, got none; run `stillhouse new FILE`")
    reading = reading_of(paths, corrections.columns, corrections.encoding, corrections.delimiter)
    facts = table_facts(reading.records(), reading.roles, SEED)
    if reading.roles.kind == "scored":
        reading = replace(reading, options={**reading.options, "scale": _scale(facts)})
    if facts.kept < LEAST_ROWS:
        raise ValueError(
            f"{paths[0]}: got {facts.kept} usable rows of {facts.rows} ({facts.unreadable} unreadable, {facts.empty} "
            f"with an empty text, {facts.repeated} that repeat a text), expected at least {LEAST_ROWS}; bring more rows"
        )
    if "label" in reading.roles.columns and min(len(facts.labels), *_two_largest(facts)) < 2:
        reading = without_label(reading)
    language, evidence = _language(reading, facts, corrections.language)
    _check_teacher(language, wishes.teacher, evidence)
    teacher = teacher_of(wishes.teacher)
    tasks, reasons = _tasks(reading, facts, text_languages(language)[0] == "en", wishes.tasks)
    documents = facts.texts["document" if "document" in facts.texts else "query"]
    tokens = tokens_of(teacher.folder).count(documents[:COUNTED_TOKENS])
    minutes = wishes.minutes or (5.0 if facts.kept <= 500 else 10.0)
    planned = sizes(facts, tokens, tasks, minutes, not wishes.no_holdout)
    understood = [
        *_about_files(reading, facts),
        evidence,
        f"tokens of a document: {_quantiles(tokens)}; {planned.values['max_tokens']} are read",
        *reasons,
        *_expectations(planned, facts, minutes),
    ]
    _check_output(wishes)
    name = _slug(wishes.name or paths[0].stem.partition(".")[0] or "own")
    files = bring(paths, reading.files, wishes.force)
    values = recipe_values(reading, planned, tasks, language) | {"teacher": teacher.values, "name": name}
    recipe = render(values, name, files, understood)
    write(recipe, wishes.output)
    print(*(line[0].upper() + line[1:] for line in understood), sep="\n")
    print(f"\nwrote {wishes.output}; next: stillhouse preview, then dvc repro")


def _scale(facts: TableFacts) -> float:
    """Return the score of equal texts: 1, 5, 10 or 100."""
    least, most = facts.scores
    if least < 0 or most > 100 or least >= most:
        raise ValueError(f"score: got {least:g} to {most:g}, expected 0 to 1, 5, 10 or 100; scale the column")
    return next(scale for scale in (1.0, 5.0, 10.0, 100.0) if most <= scale)


def _two_largest(facts: TableFacts) -> tuple[int, int]:
    counts = [count for _, count in facts.labels.most_common(2)]
    return (counts[0], counts[1]) if len(counts) > 1 else (0, 0)


def _language(reading: Reading, facts: TableFacts, given: str | None) -> tuple[str, str]:
    if given is not None:
        text_languages(given)  # refuses what is no language
        return given, f"language: {given}, as given"
    if reading.reader == "gettext.pairs":
        return "mul", "language: each catalogue names its own"
    texts = facts.texts["document" if "document" in facts.texts else "query"]
    found = languages_of(texts) or languages_of(facts.texts.get("query", texts))
    if not found:
        raise ValueError("the language of these texts cannot be told; give it: --language en")
    (language, count), total = found.most_common(1)[0], sum(found.values())
    if count < 0.6 * total:
        shares = ", ".join(f"{name} {number / total:.0%}" for name, number in found.most_common(3))
        raise ValueError(f"got several languages ({shares}); split the file, or give one: --language {language}")
    return language, f"language: {language}, of {count} of {total} texts that tell one"


def _check_teacher(language: str, teacher: str, evidence: str) -> None:
    if teacher == DEFAULT_TEACHER and text_languages(language)[0] != "en":
        raise ValueError(
            f"{evidence}; the default teacher, all-MiniLM-L6-v2, knows English alone, and a student cannot learn "
            f"from it what it does not know. Give a teacher that knows {language}, by its hub id or its folder: "
            f"--teacher {MULTILINGUAL[0]} (small), {', '.join(MULTILINGUAL[1:])}; a server is a teacher too (kind: "
            "endpoint, docs/guides/teachers.md). If the text is English after all: --language en"
        )


def _tasks(
    reading: Reading, facts: TableFacts, is_english: bool, wanted: Sequence[Task]
) -> tuple[tuple[Task, ...], list[str]]:
    kind, is_labelled = reading.roles.kind, "label" in reading.roles.columns
    lacks = {
        "retrieval": "" if kind == "pairs" else "no questions with answers",
        "text-matching": "" if kind == "scored" or reading.reader == "gettext.pairs" else "no scored pairs",
        "clustering": "" if is_labelled and (kind == "pairs" or is_english) else "no labels to measure it by",
        "classification": "" if is_labelled else "no column of labels that repeat",
    }
    if kind != "pairs" and not is_english:
        raise ValueError(f"got {kind} texts that are not English, expected pairs; bring questions with answers too")
    missing = [task for task in wanted if lacks[task]]
    if missing:
        raise ValueError(f"--tasks {missing[0]}: {lacks[missing[0]]}; leave it out, or name the columns")
    tasks = tuple(task for task in TASKS if not lacks[task] and (not wanted or task in wanted))
    if not tasks:
        raise ValueError("the data supports none of the tasks")
    left_out = ", ".join(f"{task} ({lacks[task] or 'not wanted'})" for task in TASKS if task not in tasks)
    return tasks, [f"tasks: {', '.join(tasks)}" + (f"; not {left_out}" if left_out else "")]


def _about_files(reading: Reading, facts: TableFacts) -> list[str]:
    names = ", ".join(str(file) for file in reading.files[:3]) + (", ..." if len(reading.files) > 3 else "")
    lines = [f"{names}: {reading.description}"]
    for role, column in reading.roles.columns.items():
        about = reading.columns.get(column)
        seen = "" if about is None else f", {about.distinct} distinct of {about.filled} looked at"
        lines.append(f"{role}: column {column}, {reading.roles.reasons[role]}{seen}")
    if reading.roles.negatives:
        lines.append(f"negatives: {', '.join(reading.roles.negatives)}, by name")
    repeats = f"{facts.repeated} repeat a text, {facts.empty} lack one, {facts.unreadable} cannot be read"
    return [*lines, f"rows: {facts.rows:,}, of which {facts.kept:,} usable; {repeats}"]


def _expectations(planned: Sizes, facts: TableFacts, minutes: float) -> list[str]:
    test, lines = (
        planned.splits["test"],
        ["splits: " + ", ".join(f"{rows} {name}" for name, rows in planned.splits.items())],
    )
    if planned.values["max_rows"]:
        most = planned.values["max_rows"]
        lines.append(f"the build reads {most:,} of {facts.kept:,} rows in {minutes:.0f} minutes; --minutes raises that")
    lines.append(f"expected time: {planned.minutes:.0f} minutes on two quiet cores, more on a busy machine")
    if test == 0:
        return [*lines, "quality: nothing is held out, so the report cannot say how good the model is"]
    lines.append(
        f"quality: {test} test rows tell a score of 100 to about +-{min(50, 70 / test**0.5):.0f} points"
        + ("; with so few rows, expect the teacher's quality at best" if planned.splits["train"] < 100 else "")
    )
    return lines


def _quantiles(tokens: Sequence[int]) -> str:
    ordered = sorted(tokens)
    half, most = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.95)]
    return f"half have at most {half}, 95 % at most {most}"


def _check_output(wishes: Wishes) -> None:
    output = wishes.output
    if not output.exists() or wishes.force:
        return
    if output.read_text(encoding="utf-8").startswith("# Written by `stillhouse new`"):
        raise ValueError(f"{output}: there is a recipe of an earlier `stillhouse new`; write over it with --force")
    command = ["git", "cat-file", "blob", f"HEAD:./{output}"]
    shown = subprocess.run(command, env=git_environment(), capture_output=True, check=False)
    if shown.returncode != 0 or shown.stdout != output.read_bytes():
        raise ValueError(f"{output}: there is another recipe; write over it with --force, or elsewhere with --output")
    print(f"{output}: replaces the committed recipe; `git checkout {output}` brings it back\n")


def _slug(name: str) -> str:
    slug = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")
    return slug or "own"
