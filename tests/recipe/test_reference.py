"""The reference page of the recipe: complete, linked and current."""

import re
from pathlib import Path

from stages.recipe.reference import PAGE, render

ROOT = Path(__file__).resolve().parents[2]


def row(page: str, section: str, key: str) -> str:
    """The line of a key in the table of a section."""
    table = re.split(rf"^#+ {re.escape(section)}$", page, flags=re.MULTILINE)[1].split("\n#")[0]
    return next(line for line in table.splitlines() if line.startswith(f"| `{key}` "))


def test_the_committed_page_is_current() -> None:
    assert (ROOT / PAGE).read_text(encoding="utf-8") == render(), "run `stillhouse reference` and commit the page"


def test_every_link_leads_to_a_heading() -> None:
    page = render()
    headings = re.findall(r"^#+ (.*)$", page, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w\s-]", "", heading).lower().replace(" ", "-") for heading in headings}
    assert len(anchors) == len(headings)
    assert set(re.findall(r"\(#([^)]*)\)", page)) <= anchors


def test_a_row_says_type_limits_and_meaning() -> None:
    page = render()
    temperature = row(page, "adapt.retrieval", "temperature")
    assert temperature.startswith("| `temperature` | number | at least 0.005 and at most 0.2 | Temperature with which")
    assert "[section](#adaptretrieval)" in row(page, "adapt", "retrieval")
    assert "`pairs`, `scored`, `labelled`, `documents`" in row(page, "curate.sources", "kind")
    assert "| Optional. " in row(page, "promote.gates", "min")
    assert "integer or null" in row(page, "curate.sources", "max_rows")
