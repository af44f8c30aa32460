"""The template environment of the HTML pages: self-contained, escaped, the same bytes for the same inputs."""

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from stages.reporting.number_format import compact, count, fixed, moment, percent, points, score, words

FOLDER = Path(__file__).parent


@cache
def _environment() -> Environment:
    """Escape everything but `Markup`; a name that a template uses and the context lacks is an error."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (compact, count, fixed, moment, percent, points, score, words)
    environment.filters.update({function.__name__: function for function in filters})
    return environment


def render(template: str, **context: Any) -> str:
    """Render a template of this folder with the shared style sheet inline."""
    css = Markup((FOLDER / "page.css").read_text(encoding="utf-8"))
    return _environment().get_template(template).render(css=css, **context)
