"""The model card of a release and of each of its merged models, as Markdown."""

from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from stages.reporting.page import FOLDER


def render_card(about: dict[str, Any], task: str | None) -> str:
    """Render the card of the whole release (task None) or of one merged model.

    Args:
        about: name, license, teacher, dims, sources and weights (what int8 weights cost, by task).
    """
    # Markdown is not HTML: nothing is escaped, and what is filled in comes from the recipe.
    environment = Environment(loader=FileSystemLoader(FOLDER), undefined=StrictUndefined, autoescape=False)
    return environment.get_template("card.md.j2").render(about, task=task)
