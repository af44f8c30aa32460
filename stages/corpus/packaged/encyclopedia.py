"""Whole Wikipedia articles from a compressed dump of the wiki's XML: first sentence -> the rest, the title masked."""

import bz2
import html
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from stages.corpus.packaged.wikipedia import mask_title
from stages.corpus.records import FIRST_SENTENCE, Row
from stages.corpus.sentences import split_first_sentence

_NESTED = (
    re.compile(r"\{\{[^{}]*\}\}"),  # templates
    re.compile(r"\{\|[^{]*?\|\}", re.DOTALL),  # tables
    re.compile(r"\[\[[^\[\]]*\]\]"),  # links
)
_OTHER_SPACE = re.compile(r"\[\[:?(file|image|category|[a-z-]{2,12}):", re.IGNORECASE)
# Patterns and their replacements, before and after the nested ones.
_FLAT = (
    (re.compile(r"<!--.*?-->", re.DOTALL), " "),
    (re.compile(r"(?is)<ref[^>]*/>|<ref.*?</ref>|<(gallery|math|timeline|source)\b.*?</\1>"), " "),
)
_MARKS = (
    (re.compile(r"\[\w+://\S*\s?([^\]]*)\]"), r"\1"),
    (re.compile(r"<[^>]*>"), " "),
    (re.compile(r"'{2,}"), ""),
    (re.compile(r"^\s*(=+).*?\1\s*$", re.MULTILINE), " "),  # headings
    (re.compile(r"^[*#:;|!]+.*$", re.MULTILINE), " "),  # lists and what is left of tables
    (re.compile(r"\(\s*[;,]?\s*\)"), " "),  # around a removed template
)


def articles(files: list[Path]) -> Iterator[Row]:
    """Yield pairs of an article's first sentence -> the rest with the title masked; the entity is the title."""
    for path in files:
        for title, markup in _pages(path):
            first, rest = split_first_sentence(prose(markup))
            yield {"entity": title, "query": first, "document": mask_title(rest, title), "origin": FIRST_SENTENCE}


def prose(markup: str) -> str:
    """Reduce an article's wiki markup to its sentences: no templates, tables, references, headings or lists."""
    text = markup
    for pattern, replacement in _FLAT:
        text = pattern.sub(replacement, text)
    for pattern in _NESTED:
        found = 1
        while found:  # innermost first
            text, found = pattern.subn(_shown, text)
    for pattern, replacement in _MARKS:
        text = pattern.sub(replacement, text)
    return " ".join(html.unescape(text).split())


def _shown(nested: re.Match[str]) -> str:
    """Return what a reader sees: a link's last part, nothing of templates, tables, pictures and categories."""
    is_link = nested[0].startswith("[[") and not _OTHER_SPACE.match(nested[0])
    return nested[0][2:-2].rpartition("|")[2] if is_link else " "


def _pages(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the title and markup of every article that is no redirect."""
    with bz2.open(path) as stream:
        for _, page in ElementTree.iterparse(stream):  # noqa: S314  (a file of an installed package)
            if page.tag.endswith("}page"):
                space = page.tag.removesuffix("page")
                if page.find(f"{space}redirect") is None and page.findtext(f"{space}ns") == "0":
                    yield page.findtext(f"{space}title") or "", page.findtext(f".//{space}text") or ""
                page.clear()
