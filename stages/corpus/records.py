"""Records, which readers yield and cleaning turns into rows."""

from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]
# Value of the key `origin` of a record whose query a language model wrote.
MADE = "model"


@dataclass(frozen=True)
class Unreadable:
    """A row that could not be read as a record; it is rejected with this reason, so that nothing is lost."""

    reason: str
    text: str


Record = Row | Unreadable
