"""The model card of a release and of each of its merged models, as Markdown."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from stages.reporting.page import FOLDER


def write_cards(release: Path, about: dict[str, Any]) -> None:
    """Write the cards of a release and of each of its merged models; `about` as in `render_card`."""
    (release / "README.md").write_text(render_card(about, task=None), encoding="utf-8")
    for folder in (release / "merged").iterdir():
        (folder / "README.md").write_text(render_card(about, task=folder.name), encoding="utf-8")


def render_card(about: dict[str, Any], task: str | None) -> str:
    """Render the card of the whole release (task None) or of one merged model.

    Args:
        about: name, license, teacher, tasks, dims, pooling, sources and formats (released, reasons, figures by task).
    """
    # Markdown is not HTML, so nothing is escaped; the values come from the recipe.
    environment = Environment(loader=FileSystemLoader(FOLDER), undefined=StrictUndefined, autoescape=False)
    formats = about["formats"]
    return environment.get_template("card.md.j2").render(
        about,
        task=task,
        released=[name for name, result in formats.items() if result["released"]],
        left_out={name: result["reasons"] for name, result in formats.items() if not result["released"]},
        worst={name: _worst(result["tasks"].values()) for name, result in formats.items() if result["tasks"]},
    )


def _worst(tasks: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The lowest value of each figure over tasks, and the most megabytes."""
    rows = list(tasks)
    return {name: (max if name == "megabytes" else min)(row[name] for row in rows) for name in rows[0]}
