"""State of the Union messages, one a file named <year>-<president>-<number>.txt: long texts in stretches."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.corpus.sentences import sentences, stretches

Record = dict[str, Any]

_STAGE_DIRECTION = re.compile(r"\[[^\]]*\]")  # [As delivered before a joint session], [Applause]
_CAPITAL_INSIDE = re.compile(r"(?<=[a-z])(?=[A-Z])(?<!Mc)")


def pairs(files: list[Path], stretch_words: float) -> Iterator[Record]:
    """Pairs of who, when and opening sentence -> the rest of the stretch; the entity is the speech."""
    for path in files:
        for opening, *rest in stretches(speech(path), int(stretch_words)):
            yield {"entity": path.stem, "query": f"{title(path)}: {opening}", "document": " ".join(rest)}


def documents(files: list[Path], stretch_words: float) -> Iterator[Record]:
    """Whole speeches in stretches of at least so many words, the last of a speech apart."""
    for path in files:
        for stretch in stretches(speech(path), int(stretch_words)):
            yield {"entity": path.stem, "text": " ".join(stretch)}


def speech(path: Path) -> list[str]:
    """The sentences of a speech, without stage directions."""
    return sentences(" ".join(_STAGE_DIRECTION.sub(" ", path.read_text(encoding="utf-8")).split()))


def title(path: Path) -> str:
    """`President Van Buren's message to Congress, 1838` of 1838-VanBuren-1.txt."""
    year, president, _ = path.stem.split("-")
    return f"President {_CAPITAL_INSIDE.sub(' ', president)}'s message to Congress, {year}"
