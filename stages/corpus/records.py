"""Records, which readers yield and cleaning turns into rows, and the text of a value of any format."""

from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

Row = dict[str, Any]

# Column `origin` of pairs: where the query comes from. A reader that says nothing reads queries that people gave.
GIVEN, HEADING, QUESTION_HEADING, FIRST_SENTENCE, PLANTED, MODEL = (
    "given", "heading", "question-heading", "first-sentence", "planted", "model",
)  # fmt: skip


@dataclass(frozen=True)
class Unreadable:
    """A row that could not be read as a record; it is rejected with this reason, so that nothing is lost."""

    reason: str
    text: str


Record = Row | Unreadable


def text_of(value: Any) -> str:
    """Write a value as text, in one spelling whatever format it was read from; of a list, its first value.

    What is missing is empty: null, NaN and infinite numbers. A whole number is written without a point, since a gap
    turns a column of integers into floats. Midnight is its date, since a column of dates may be one of times.

    Raises:
        TypeError: it is no text but bytes, an object or a list of lists; the message names its type.

    Example:
        >>> [text_of(value) for value in (1.0, 2.50, True, float("nan"), None)]
        ['1', '2.5', 'true', '', '']
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, dict | list | bytes):
        raise TypeError(type(value).__name__)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float | Decimal):
        return _number_text(value if isinstance(value, Decimal) else Decimal(float.__repr__(value)))
    if isinstance(value, datetime) and value.time() == time() and value.utcoffset() is None:
        return value.date().isoformat()
    if isinstance(value, date):
        return value.isoformat(" ") if isinstance(value, datetime) else value.isoformat()
    return "" if value is None else str(value)


def _number_text(number: Decimal) -> str:
    if not number.is_finite():
        return ""
    text = f"{number:f}" if number else "0"
    return text.rstrip("0").rstrip(".") if "." in text else text
