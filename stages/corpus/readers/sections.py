"""Sections of documents (text, Markdown, HTML, reStructuredText, Word, PDF): headings with their paragraphs."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import docutils.core
import docutils.nodes
from bs4 import BeautifulSoup, PageElement, Tag
from charset_normalizer import from_bytes
from markdown_it import MarkdownIt
from markdown_it.token import Token

from stages.corpus.normalisation import normalise

_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_NO_TEXT = ("title", "script", "style", "nav", "aside", "form", "template", "noscript", "pre")
# Parts of a page that repeat on every page, unless they stand inside of its text.
_FRAMES, _MAIN = ("header", "footer"), ("main", "article")
_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
# A role that only Sphinx knows, such as :ref:`text <target>`.
_ROLE = re.compile(r":[\w.+:-]+:`~?([^`<]*?)\s*(?:<[^`>]*>)?`")
_GROUPS = ("div", "section", "article", "main", "body", "figure", "table", "tr", "ul", "ol", "dl")
_BLOCKS = (*_HEADINGS, "p", "li", "dt", "dd", "blockquote", "td", "th", *_GROUPS)
_CONVERTED = (".docx", ".pdf")
# docutils reports no fault, reads no other file and passes no raw HTML through.
_RST = {"report_level": 5, "halt_level": 5, "file_insertion_enabled": False, "raw_enabled": False}


class TextSection(NamedTuple):
    """A section without its subsections: the headings that lead to it, and its paragraphs."""

    headings: tuple[str, ...]
    paragraphs: list[str]


# A heading (its level, from 1, and text), or a paragraph (level 0).
Block = tuple[int, str]


def read_sections(path: Path) -> list[TextSection]:
    """Read the sections of a file that have paragraphs, in order; code is left out.

    Raises:
        ValueError: it is damaged, or of no known format.
        ModuleNotFoundError: the extra `documents` is missing, which Word and PDF files need.
    """
    suffix = path.suffix.lower()
    if suffix not in (*_BLOCKS_OF, *_CONVERTED):
        raise ValueError(f"got {path.name}, expected one of {', '.join((*_BLOCKS_OF, *_CONVERTED))}")
    text = _converted(path) if suffix in _CONVERTED else _text(path)
    try:
        return _nested(_BLOCKS_OF.get(suffix, _markdown_blocks)(text))
    except Exception as error:  # the parsers raise anything, such as RecursionError for lists in lists
        raise ValueError(f"{path.name}: cannot be read as {suffix} ({type(error).__name__}: {error})") from error


def _text(path: Path) -> str:
    raw = path.read_bytes()
    # Hardly a text of another encoding is UTF-8 by chance, while a guess from a short text may be wrong.
    is_utf_8 = b"\0" not in raw and raw.decode(errors="ignore").encode() == raw
    text = raw.decode() if is_utf_8 else str(from_bytes(raw).best() or "")
    if raw and not text:
        raise ValueError(f"{path.name}: the encoding of its text cannot be told; save it as UTF-8")
    return text.removeprefix("\ufeff").replace("\r\n", "\n")


def _converted(path: Path) -> str:
    try:
        from markitdown import MarkItDown
        from markitdown.converters import DocxConverter, PdfConverter
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{path.name}: Word and PDF files need the extra `documents`") from error
    # The other converters would take a damaged file for plain text, or for an archive to unpack.
    converter = MarkItDown(enable_builtins=False, enable_plugins=False)
    converter.register_converter(DocxConverter())
    converter.register_converter(PdfConverter())
    try:
        return str(converter.convert_local(path).text_content)
    except Exception as error:  # the converters raise whatever their libraries do
        raise ValueError(f"{path.name}: cannot be converted: {' '.join(str(error).split())[:120]}") from error


def _nested(blocks: Iterator[Block]) -> list[TextSection]:
    """Put paragraphs below the headings that lead to them."""
    sections: list[TextSection] = [TextSection((), [])]
    open_headings: list[Block] = []
    for level, text in blocks:
        line = normalise(text)  # words are counted and masked before the text is cleaned
        if not line:
            continue
        if level:
            open_headings = [heading for heading in open_headings if heading[0] < level] + [(level, line)]
            sections.append(TextSection(tuple(heading for _, heading in open_headings), []))
        else:
            sections[-1].paragraphs.append(line)
    return [section for section in sections if section.paragraphs]


def _markdown_blocks(text: str) -> Iterator[Block]:
    level = 0
    for token in MarkdownIt("commonmark").enable("table").parse(_FRONT_MATTER.sub("", text)):
        if token.type == "heading_open":
            level = int(token.tag[1])
        elif token.type == "inline":
            yield level, _inline(token)
            level = 0
        elif token.type == "html_block":
            yield from _html_blocks(token.content)


def _inline(token: Token) -> str:
    """Return the words of a line, without the targets of links and images."""
    return "".join(
        " " if child.type in ("softbreak", "hardbreak") else child.content
        for child in token.children or ()
        if child.type in ("text", "code_inline", "softbreak", "hardbreak")
    )


def _html_blocks(text: str) -> Iterator[Block]:
    page = BeautifulSoup(text, "html.parser")
    for element in page(_NO_TEXT):
        element.decompose()
    for element in page(_FRAMES):
        if element.find_parent(_MAIN) is None:
            element.decompose()
    for element in page("a"):  # the sign beside a heading that links to it
        if not re.search(r"\w", element.get_text()):
            element.decompose()
    for element in page("br"):
        element.replace_with(" ")
    for block, strings in itertools.groupby(page.strings, _block_of):
        level = _HEADINGS.index(block.name) + 1 if block.name in _HEADINGS else 0
        yield level, "".join(strings)


def _block_of(string: PageElement) -> Tag:
    """Return the innermost block around a string, or the page."""
    *_, page = string.parents
    return next((parent for parent in string.parents if parent.name in _BLOCKS), page)


def _rst_blocks(text: str) -> Iterator[Block]:
    document = docutils.core.publish_doctree(text, settings_overrides=_RST)
    for node in document.findall(lambda node: isinstance(node, docutils.nodes.title | docutils.nodes.paragraph)):
        ancestors: list[docutils.nodes.Node] = []
        while (parent := (ancestors[-1] if ancestors else node).parent) is not None:
            ancestors.append(parent)
        if any(isinstance(parent, docutils.nodes.system_message) for parent in ancestors):
            continue
        depth = sum(isinstance(parent, docutils.nodes.section) for parent in ancestors)
        is_heading = isinstance(node, docutils.nodes.title) and isinstance(node.parent, docutils.nodes.section)
        # A document's only title is a title of the document itself, not of a section.
        is_title = isinstance(node, docutils.nodes.title) and isinstance(node.parent, docutils.nodes.document)
        yield (1 if is_title else depth + 1 if is_heading else 0), _ROLE.sub(r"\1", node.astext())


def _text_blocks(text: str) -> Iterator[Block]:
    """Take the first line for the title where it is short and no sentence."""
    first, *rest = re.split(r"\n\s*\n", text.strip())
    is_title = bool(rest) and len(first.split()) <= 12 and not first.rstrip().endswith((".", ":", ",", ";"))
    yield int(is_title), first
    for paragraph in rest:
        yield 0, paragraph


_BLOCKS_OF = {
    ".md": _markdown_blocks,
    ".html": _html_blocks,
    ".htm": _html_blocks,
    ".rst": _rst_blocks,
    ".txt": _text_blocks,
}
