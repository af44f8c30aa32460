"""Sentences of a text, and stretches of whole sentences."""

import itertools
import re
from collections.abc import Iterator, Sequence

# A sentence ends at . ! or ? before white space and a capital, unless a one-letter initial or "c." stands before it;
# Chinese and Japanese put no space behind their full stop.
_END = re.compile(
    r"(?<![A-Z]\.)(?<!\b[A-Z])(?<!\bc)(?<!\bSt)(?<!\bDr)(?<!\bMr)[.!?][\"')\]]?\s+(?=[\"'(\[]?[A-Z0-9])"
    r"|[。！？][」』）”]?\s*"
)


def split_first_sentence(text: str) -> tuple[str, str]:
    """Split a text into its first sentence and the rest, which is empty where there is one sentence only."""
    end = _END.search(text)
    if end is None:
        return text.strip(), ""
    return text[: end.end()].strip(), text[end.end() :].strip()


def sentences(text: str) -> list[str]:
    """Split a text into its sentences, without the white space between them."""
    starts = [0, *(end.end() for end in _END.finditer(text)), len(text)]
    parts = (text[start:end].strip() for start, end in itertools.pairwise(starts))
    return [part for part in parts if part]


def stretches(parts: Sequence[str], words: int) -> Iterator[list[str]]:
    """Yield stretches of sentences that end as soon as they have `words` words; the last stretch may have fewer."""
    stretch: list[str] = []
    count = 0
    for part in parts:
        stretch.append(part)
        count += len(part.split())
        if count >= words:
            yield stretch
            stretch, count = [], 0
    if stretch:
        yield stretch
