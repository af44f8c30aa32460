"""Operations of AWS services: first sentence of an operation's documentation -> the rest."""

import gzip
import html
import json
import re
from collections.abc import Iterator
from pathlib import Path

from stages.corpus.records import FIRST_SENTENCE, Row

_TAG = re.compile(r"<[^>]+>")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")


def operations(files: list[Path]) -> Iterator[Row]:
    """Yield a pair of first sentence -> rest for each operation; the entity is the service."""
    for path in files:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8") as stream:
            model = json.load(stream)
        for operation in model["operations"].values():
            first, rest = _first_and_rest(operation.get("documentation", ""))
            yield {"entity": model["metadata"]["serviceId"], "query": first, "document": rest, "origin": FIRST_SENTENCE}


def _first_and_rest(documentation: str) -> tuple[str, str]:
    text = " ".join(html.unescape(_TAG.sub(" ", documentation)).split())
    parts = _SENTENCE_END.split(text, maxsplit=1)
    return (parts[0], parts[1]) if len(parts) == 2 else (text, "")
