"""Readers of folders of documents: pairs made from their structure, and their sections; a file is one entity.

Nobody asked these questions: a figure on them says how well headings and first sentences find their sections.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from stages.corpus.packaged.wikipedia import mask_title
from stages.corpus.readers.sections import TextSection, read_sections
from stages.corpus.records import FIRST_SENTENCE, HEADING, QUESTION_HEADING, Record, Row, Unreadable
from stages.corpus.sentences import sentences, split_first_sentence
from stages.corpus.text_length import UNSPACED, count_words

# Words of a first sentence that asks for the rest of its text: fewer are a number of a list, or a cry.
MIN_QUERY_WORDS = 3
# Latin, full-width, Greek and Arabic.
_QUESTION_MARKS = ("?", "\uff1f", "\u037e", "\u061f")
# A word with the space behind it, or a letter of a script without spaces.
_WORD = re.compile(rf"[{UNSPACED}]\s*|[^\s{UNSPACED}]+\s*")


def folder(files: Sequence[Path], max_words: float = 150, min_words: float = 12) -> Iterator[Record]:
    """Yield pairs of headings -> the text below them, and of first sentence -> the rest of a text further on.

    A heading that is a question asks alone, without those above it. The words of the headings are masked in the rest
    behind a first sentence, so that word matching alone does not find it. `origin` tells the three apart.

    Args:
        files: .txt, .md, .html, .rst, .docx and .pdf files.
        max_words: words of a document; a longer section becomes several, cut between its paragraphs.
        min_words: words that a document has at least; shorter ones join the next of their section, or are left out.
    """
    for path in files:
        for record in _texts(path, int(max_words), int(min_words)):
            if isinstance(record, Unreadable):
                yield record
                continue
            headings, texts = record
            for position, text in enumerate(texts):
                if headings and position == 0:
                    yield {"entity": _entity(path), "document": text} | _asked_by(headings)
                    continue
                first, rest = split_first_sentence(text)
                masked = mask_title(rest, headings[-1]) if headings else rest
                if count_words(first) >= MIN_QUERY_WORDS and count_words(masked) >= min_words:
                    yield {"entity": _entity(path), "query": first, "document": masked, "origin": FIRST_SENTENCE}


def sections(files: Sequence[Path], max_words: float = 150, min_words: float = 12) -> Iterator[Record]:
    """Yield the texts of the same files below their headings, as documents; the arguments are those of `folder`."""
    for path in files:
        for record in _texts(path, int(max_words), int(min_words)):
            if isinstance(record, Unreadable):
                yield record
                continue
            headings, texts = record
            for text in texts:
                yield {"entity": _entity(path), "text": f"{': '.join(headings)}\n{text}" if headings else text}


def _asked_by(headings: Sequence[str]) -> Row:
    """Return the query that the headings of a section make, and its origin."""
    if headings[-1].rstrip().endswith(_QUESTION_MARKS):
        return {"query": headings[-1], "origin": QUESTION_HEADING}
    return {"query": ": ".join(headings), "origin": HEADING}


def _texts(path: Path, max_words: int, min_words: int) -> Iterator[tuple[tuple[str, ...], list[str]] | Unreadable]:
    """Yield the headings of each section with its texts; a file that cannot be read is one rejected row."""
    try:
        found = read_sections(path)
    except (ValueError, OSError) as error:
        yield Unreadable(f"not a document: {' '.join(str(error).split())}", path.name)
        return
    for section in found:
        if texts := _cut(section, max_words, min_words):
            yield section.headings, texts


def _cut(section: TextSection, max_words: int, min_words: int) -> list[str]:
    """Join a section's paragraphs to texts of at most `max_words` words."""
    texts, count = [""], 0
    for part in (part for paragraph in section.paragraphs for part in _parts(paragraph, max_words)):
        words = count_words(part)
        if count + words > max_words and count >= min_words:
            texts, count = [*texts, ""], 0
        texts[-1], count = f"{texts[-1]} {part}".strip(), count + words
    return [text for text in texts if count_words(text) >= min_words]


def _parts(paragraph: str, max_words: int) -> Iterator[str]:
    """Cut a paragraph that is too long between its sentences, and a sentence that is too long between words."""
    if count_words(paragraph) <= max_words:
        yield paragraph
        return
    for sentence in sentences(paragraph):
        words = _WORD.findall(sentence)
        for start in range(0, len(words), max_words):
            yield "".join(words[start : start + max_words]).strip()


def _entity(path: Path) -> str:
    """Name a file by the end of its path, which is the same on every machine."""
    return "/".join(path.parts[-3:])
