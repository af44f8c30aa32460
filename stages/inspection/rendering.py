"""A recipe as text: the template beside this module, filled with what was understood and chosen."""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from stages.corpus.languages import text_languages
from stages.inspection.draft import WIKIPEDIA_ROWS, Sizes
from stages.inspection.reading import Reading, labelled_options, quoted
from stages.recipe.fields import TEXT_FIELDS, Task
from stages.recipe.recipe import read


def recipe_values(reading: Reading, planned: Sizes, tasks: Sequence[Task], language: str) -> dict[str, Any]:
    """Return the values of the template that follow from the data."""
    is_english = text_languages(language)[0] == "en"
    return planned.values | {
        "kind": reading.roles.kind, "reading": reading, "tasks": tasks, "language": language,
        "steps": planned.values["steps"], "wikipedia": is_english, "wikipedia_rows": WIKIPEDIA_ROWS,
        "pairs": reading.roles.kind == "pairs",
    }  # fmt: skip


def render(values: dict[str, Any], name: str, files: Sequence[str], understood: Sequence[str]) -> str:
    """Render the recipe, with what was understood at its top."""
    reading: Reading = values.pop("reading")
    tasks, kind = values["tasks"], values["kind"]
    source = "own" if name == "wikipedia" else name
    labels, most = source + "-labels" * (kind == "pairs"), list(values["max_words"].values())
    fields = TEXT_FIELDS[reading.roles.kind]
    sources = [
        {
            "name": labels if kind == "labelled" else source,
            "kind": kind,
            "reader": reading.reader,
            "files": quoted(files),
            "options": quoted(reading.options),
            "comment": " ".join(", ".join(reading.roles.columns.values()).split()),
            "words": dict(zip(fields, most[-len(fields) :], strict=True)),
        }
    ]
    if "label" in reading.roles.columns and kind == "pairs" and {"clustering", "classification"} & set(tasks):
        of_labels = {"name": labels, "kind": "labelled", "reader": "rows.labelled", "words": {"text": most[-1]}}
        options = quoted(labelled_options(reading))
        sources.append(sources[0] | of_labels | {"comment": "the same texts with labels", "options": options})
    has_labels = any(one["kind"] == "labelled" for one in sources)
    measured = [task for task in ("text_matching", "clustering", "classification") if task.replace("_", "-") in tasks]
    if kind != "scored":
        measured = [task for task in measured if task != "text_matching"]
    return _template().render(
        **values,
        sources=sources,
        source=source,
        understood=understood,
        today=datetime.datetime.now(datetime.UTC).date(),
        mined=f"[{source}]" if "retrieval" in tasks else "[]",
        distilled="[" + ", ".join([sources[0]["name"]] + ["wikipedia"] * values["wikipedia"]) + "]",
        scored=f"[{source}]" if kind == "scored" else "[]",
        paraphrases=f"[{source}]" if reading.is_alike and "text-matching" in tasks else "[]",
        labelled=f"[{labels}]" if has_labels and "classification" in tasks else "[]",
        labels=f"[{labels}]" if has_labels else "[]",
        measured=measured if values["test"] else [],
    )


def _template() -> jinja2.Template:
    loader = jinja2.PackageLoader("stages.inspection", "")
    environment = jinja2.Environment(  # noqa: S701  (YAML, not HTML)
        loader=loader, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("recipe.yaml.j2")


def write(recipe: str, output: Path) -> None:
    """Check a recipe beside its place, and put it there."""
    beside = output.with_name(output.name + ".new")
    beside.write_text(recipe + "\n", encoding="utf-8")
    try:
        read(beside)
    except ValueError:
        beside.unlink()
        raise
    beside.replace(output)
