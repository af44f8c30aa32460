"""Lead paragraphs of Wikipedia articles: JSON of title -> {title, extract, description, topic}."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from stages.corpus.records import FIRST_SENTENCE, Row
from stages.corpus.sentences import split_first_sentence

_UNLABELLED = "Uncategorized"
MASK = "it"


def leads(files: list[Path]) -> Iterator[Row]:
    """Yield pairs of first sentence -> the rest with the title masked, so that word matching alone does not find it."""
    for article in _articles(files):
        first, rest = split_first_sentence(article["extract"])
        document = mask_title(rest, article["title"])
        yield {"entity": article["title"], "query": first, "document": document, "origin": FIRST_SENTENCE}


def descriptions(files: list[Path]) -> Iterator[Row]:
    """Yield pairs of short description -> title, the short texts of text matching."""
    for article in _articles(files):
        title = re.sub(r"\s*\([^)]*\)$", "", article["title"])
        yield {"entity": article["title"], "query": article["description"] or "", "document": title}


def translations(files: list[Path]) -> Iterator[Row]:
    """Yield the leads of the first language with those of the second about the same title.

    Nobody translated them, but both tell the same subject's first facts.

    Args:
        files: one file of each language.
    """
    known, other = ({article["title"]: article["extract"] for article in _articles([path])} for path in files)
    for title, text in known.items():
        if title in other:
            yield {"entity": title, "text": text, "translation": other[title]}


def topics(files: list[Path]) -> Iterator[Row]:
    """Yield title-masked articles without their first sentence, labelled with their topic, where they have a topic."""
    for article in _articles(files):
        if article["topic"] != _UNLABELLED:
            _, rest = split_first_sentence(article["extract"])
            text = mask_title(rest, article["title"])
            yield {"entity": article["title"], "text": text, "label": article["topic"]}


def mask_title(text: str, title: str) -> str:
    """Replace an article's title, and the words of a multi-word title that are its own, by a pronoun."""
    plain = re.sub(r"\s*\([^)]*\)$", "", title)
    # Not \b: a title may end in a sign (C++, Washington, D.C.).
    masked = re.sub(rf"(?<!\w){re.escape(plain)}(?!\w)", MASK, text, flags=re.IGNORECASE)
    own_words = [word for word in re.findall(r"\w[\w'’-]*", plain) if len(word) > 3 and word[0].isupper()]
    for word in own_words:
        masked = re.sub(rf"\b{re.escape(word)}\b", MASK, masked)
    return masked


def _articles(files: list[Path]) -> Iterator[Row]:
    for path in files:
        yield from json.loads(path.read_text(encoding="utf-8")).values()
