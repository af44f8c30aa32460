"""The Common Weakness Enumeration: name and short description of a weakness -> its long description."""

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from stages.corpus.records import HEADING, Row

_SPACE = "{http://cwe.mitre.org/cwe-7}"


def pairs(files: list[Path]) -> Iterator[Row]:
    """Yield pairs of name and description -> long description, without deprecated ones; the entity is CWE-<id>."""
    for path in files:
        catalogue = ElementTree.parse(path).getroot()  # noqa: S314  (a file of an installed package)
        for weakness in catalogue.iter(f"{_SPACE}Weakness"):
            if weakness.attrib["Status"] != "Deprecated":
                yield {
                    "origin": HEADING,
                    "entity": f"CWE-{weakness.attrib['ID']}",
                    "query": f"{weakness.attrib['Name']}: {_text(weakness, 'Description')}",
                    "document": _text(weakness, "Extended_Description"),
                }


def _text(weakness: ElementTree.Element, name: str) -> str:
    """Return the text of a child without its markup; empty where there is no such child."""
    found = weakness.find(f"{_SPACE}{name}")
    return "" if found is None else " ".join(" ".join(found.itertext()).split())
