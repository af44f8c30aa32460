"""The command `stillhouse new`: from a person's own files to a recipe, with what was understood and why."""

import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from stages.corpus.text_length import tokens_of
from stages.inspection.draft import sizes
from stages.inspection.findings import about_files, about_tasks, about_tokens, expectations, lacks_of_tasks
from stages.inspection.reading import Reading, reading_of
from stages.inspection.rendering import recipe_values, render, write
from stages.inspection.source_files import bring
from stages.inspection.splits import LEAST_ROWS, cannot_be_split, split_shares
from stages.inspection.statistics import TableFacts, table_facts
from stages.inspection.teacher import DEFAULT_TEACHER, teacher_of
from stages.inspection.told_language import check_teacher, told_language
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
    minutes: Annotated[float | None, Parameter(validator=Number(gt=0))] = None
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
    facts = table_facts(reading.records, reading.roles, SEED)
    if facts.kept < LEAST_ROWS:
        raise ValueError(
            f"{paths[0]}: got {facts.kept} usable rows of {facts.rows} ({facts.unreadable} unreadable, {facts.empty} "
            f"with an empty cell, {facts.repeated} that repeat a text), expected at least {LEAST_ROWS}; bring more rows"
            + ("; scores are numbers with a point" if reading.roles.kind == "scored" else "")
        )
    if reading.roles.kind == "scored":
        reading = replace(reading, options={**reading.options, "scale": _scale(facts)})
    told = told_language(reading, facts, corrections.language)
    check_teacher(told, wishes.teacher)
    teacher = teacher_of(wishes.teacher)
    tasks, about = _tasks(reading, facts, wishes)
    shares = split_shares(facts, tasks, not wishes.no_holdout)
    if shares is None:
        raise cannot_be_split(facts, tasks, not wishes.no_holdout)
    documents = facts.texts["document" if "document" in facts.texts else "query"]
    tokens = tokens_of(teacher.folder).count(documents[:COUNTED_TOKENS])
    minutes = wishes.minutes or (5.0 if facts.kept <= 500 else 10.0)
    planned = sizes(facts, shares, tokens, tasks, minutes)
    understood = [
        *about_files(reading, facts),
        told.evidence,
        about_tokens(tokens, planned),
        about,
        *expectations(planned, facts, minutes),
    ]
    _check_output(wishes)
    name = _slug(wishes.name or paths[0].stem.partition(".")[0])
    files = bring(paths, reading.files, wishes.force)
    values = recipe_values(reading, planned, tasks, told.declared) | {"teacher": teacher.values, "name": name}
    recipe = render(values, name, files, understood)
    write(recipe, wishes.output)
    print(*(line[0].upper() + line[1:] for line in understood), sep="\n")
    print(f"\nwrote {wishes.output}; next: stillhouse preview, then dvc repro")


def _scale(facts: TableFacts) -> float:
    """Return the score of equal texts: 1, 5, 10 or 100."""
    least, most = min(facts.scores), max(facts.scores)
    if least < 0 or most > 100 or least >= most:
        raise ValueError(f"score: got {least:g} to {most:g}, expected scores that differ, from 0 to at most 100")
    return next(scale for scale in (1.0, 5.0, 10.0, 100.0) if most <= scale)


def _tasks(reading: Reading, facts: TableFacts, wishes: Wishes) -> tuple[tuple[Task, ...], str]:
    """Choose the tasks among those that the data supports, and say why others are left out."""
    is_splittable = split_shares(facts, ["classification"], not wishes.no_holdout) is not None
    lacks = lacks_of_tasks(reading, is_splittable)
    for task in wishes.tasks:
        if lacks[task]:
            raise ValueError(f"--tasks {task}: {lacks[task]}; leave it out, or name the columns")
    tasks = tuple(task for task in TASKS if not lacks[task] and (not wishes.tasks or task in wishes.tasks))
    if not tasks:
        whys = ", ".join(f"{task} ({why})" for task, why in lacks.items())
        raise ValueError(f"the rows suffice for no task: {whys}; bring more rows, or name the columns")
    is_measured = "text-matching" not in tasks or reading.roles.kind == "scored"
    return tasks, about_tasks(tasks, lacks, is_measured)


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
    """Turn a name into one that recipes take, and that YAML reads as a text."""
    slug = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")
    return slug if slug[:1].isalpha() and slug not in ("true", "false", "null") else f"own-{slug}".rstrip("-")
