"""The template environment of the HTML pages: self-contained, escaped, the same bytes for the same inputs."""

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from stages.reporting import number_format as formats

FOLDER = Path(__file__).parent
FILTERS = (
    formats.compact,
    formats.count,
    formats.fixed,
    formats.moment,
    formats.percent,
    formats.points,
    formats.score,
    formats.words,
)


@cache
def _environment() -> Environment:
    """Everything is escaped unless a module hands over `Markup`; a name the page lacks is an error."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update({function.__name__: function for function in FILTERS})
    return environment


def render(template: str, **context: Any) -> str:
    """Render a template of this folder with the shared style sheet placed inline."""
    css = Markup((FOLDER / "page.css").read_text(encoding="utf-8"))
    return _environment().get_template(template).render(css=css, **context)
