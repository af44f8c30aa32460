"""The objects of a JSON array, one at a time: a file may be larger than the memory."""

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

READ_CHARACTERS = 2**20
_SPACE = re.compile(r"[ \t\r\n]*")


def array_items(start: str, rest: TextIO, most: int) -> Iterator[Any]:
    """Yield the items of an array.

    Args:
        start: the first characters, which begin with the bracket.
        most: characters of an item.

    Raises:
        ValueError: it is no array, or an item is longer.
    """
    text, at, decoder = start, start.index("[") + 1, json.JSONDecoder()

    def more() -> bool:
        """Read on behind the item at hand."""
        nonlocal text, at
        read = rest.read(READ_CHARACTERS)
        text, at = text[at:] + read, 0
        return bool(read)

    def next_sign() -> str:
        nonlocal at
        while True:
            at = _SPACE.match(text, at).end()  # type: ignore[union-attr]  # it matches the empty text
            if at < len(text) or not more():
                return text[at : at + 1]

    is_first = True
    while (sign := next_sign()) != "]":
        if not is_first:
            if sign != ",":
                raise ValueError(f"expected a comma, got {sign or 'its end'}")
            at += 1
            next_sign()
        is_first = False
        while True:
            try:
                item, end = decoder.raw_decode(text, at)
            except ValueError as error:
                if len(text) - at > most:
                    raise ValueError(f"an object of over {most >> 20} Mi characters") from error
                if not more():
                    raise
                continue
            break
        at = end
        yield item
    at += 1
    if behind := next_sign():
        raise ValueError(f"expected its end, got {behind!r}")
