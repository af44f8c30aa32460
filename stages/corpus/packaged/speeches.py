"""State of the Union messages in stretches of sentences; a file <year>-<president>-<number>.txt holds one speech."""

import re
from collections.abc import Iterator
from pathlib import Path

from stages.corpus.needles import question_records
from stages.corpus.records import HEADING, Row
from stages.corpus.sentences import sentences, stretches

_STAGE_DIRECTION = re.compile(r"\[[^\]]*\]")  # [As delivered before a joint session], [Applause]
_CAPITAL_INSIDE = re.compile(r"(?<=[a-z])(?=[A-Z])(?<!Mc)")


def pairs(files: list[Path], stretch_words: float) -> Iterator[Row]:
    """Yield pairs of a stretch's speaker, year and first sentence -> its other sentences; the entity is the speech."""
    for path in files:
        for opening, *rest in stretches(_speech(path), int(stretch_words)):
            query, document = f"{_title(path)}: {opening}", " ".join(rest)
            yield {"entity": path.stem, "query": query, "document": document, "origin": HEADING}


def documents(files: list[Path], stretch_words: float) -> Iterator[Row]:
    """Yield whole speeches in stretches of at least so many words, except the last of a speech."""
    for path in files:
        for stretch in stretches(_speech(path), int(stretch_words)):
            yield {"entity": path.stem, "text": " ".join(stretch)}


def needles(files: list[Path], stretch_words: float, seed: float) -> Iterator[Row]:
    """Yield pairs of a question -> stretch of a speech with the answer planted in it.

    The speech is the entity, so a needle planted in one split's speeches is never asked for in another split.
    """
    for path in files:
        yield from question_records(path.stem, _speech(path), int(stretch_words), int(seed))


def _speech(path: Path) -> list[str]:
    """Return the sentences of a speech, without stage directions."""
    return sentences(" ".join(_STAGE_DIRECTION.sub(" ", path.read_text(encoding="utf-8")).split()))


def _title(path: Path) -> str:
    """Return `President Van Buren's message to Congress, 1838` for 1838-VanBuren-1.txt."""
    year, president, _ = path.stem.split("-")
    return f"President {_CAPITAL_INSIDE.sub(' ', president)}'s message to Congress, {year}"
