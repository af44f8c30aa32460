"""What a reader hands on in a record's place where a row is none: its text and why, so that nothing is lost."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Unreadable:
    """A row that is no record; cleaning rejects it with this reason."""

    reason: str
    text: str
