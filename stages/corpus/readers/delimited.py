"""Rows of CSV and TSV files: strictly where cells are quoted, and without any quoting in TSV files.

Quotes are of three kinds (option `quotes`): `double`, which a quote inside a cell is doubled by, as in RFC 4180;
`backslash`, as MySQL writes them; `none`, as in the TSV files of MS MARCO, PAWS-X and GLUE.
"""

import csv
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

from stages.corpus.records import Record, Unreadable

DIALECTS: dict[str, dict[str, Any]] = {
    "double": {"quoting": csv.QUOTE_MINIMAL, "strict": True},
    "backslash": {"quoting": csv.QUOTE_MINIMAL, "doublequote": False, "escapechar": "\\", "strict": True},
    "none": {"quoting": csv.QUOTE_NONE},
}
# What Excel writes and reads before the header.
_SEPARATOR = re.compile(r'\A"?sep=(.)"?\s*\Z', re.IGNORECASE)
# A quoted cell with so many lines inside that are whole rows has swallowed them.
MIN_SWALLOWED_ROWS = 3


def default_quotes(delimiter: str) -> str:
    """Return how cells are quoted where the recipe does not say."""
    return "none" if delimiter == "\t" else "double"


class DelimitedRows:
    """The rows of a file, as dictionaries by the names of its first line; `header` and `delimiter` are those found.

    Args:
        file: its name, for messages.
        lines: with their ends.

    Raises:
        ValueError: the first line is no header, or a quote that is not closed swallows rows.
    """

    def __init__(self, file: str, lines: Iterator[str], delimiter: str, quotes: str | None) -> None:
        self._file, self._quotes = file, quotes or default_quotes(delimiter)
        if self._quotes not in DIALECTS:
            raise ValueError(f"{file}: got quotes {quotes!r}, expected one of {', '.join(DIALECTS)}")
        first = next(lines, "")
        separator = _SEPARATOR.match(first)
        self.delimiter = separator[1] if separator else delimiter
        self._num_lines = int(separator is not None)
        self._row_lines: list[str] = []
        self._cells = csv.reader(
            self._remembered(lines if separator else chain([first], lines)),
            delimiter=self.delimiter,
            **DIALECTS[self._quotes],
        )
        self.header = self._header()

    def __iter__(self) -> Iterator[Record]:
        while (row := self._next()) is not None:
            if isinstance(row, Unreadable):
                yield row
                continue
            if len(row) > len(self.header) and not any(row[len(self.header) :]):
                row = row[: len(self.header)]  # empty cells behind the last column, as Excel leaves them
            if len(row) == len(self.header):
                yield dict(zip(self.header, row, strict=True))
            elif row:
                yield Unreadable(f"not {len(self.header)} cells, as the header has", self._text().rstrip("\r\n"))

    def _header(self) -> list[str]:
        row = self._next()
        names = row if isinstance(row, list) else []
        while names and not names[-1].strip():
            names = names[:-1]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"{self._file}: expected a first line of distinct column names, got {names[:20]}")
        return names

    def _next(self) -> list[str] | Unreadable | None:
        self._row_lines = []
        try:
            row = next(self._cells)
        except StopIteration:
            return None
        except csv.Error as error:
            return self._faulty(str(error))
        if len(self._row_lines) > MIN_SWALLOWED_ROWS + 1:
            self._refuse_swallowed_rows()
        return row

    def _faulty(self, reason: str) -> Unreadable:
        """Reject a row of one line; several lines are an open quote, behind which every row may be lost."""
        if "expected after" in reason:
            reason = "text behind a closing quote"
        elif "unexpected end" in reason:
            reason = "a quote that is not closed"
        if len(self._row_lines) > 1:
            raise self._fault(reason)
        hint = "; the option `quotes: backslash` reads it" if '\\"' in self._text() else ""
        return Unreadable(f"not CSV: {reason}{hint}", self._text())

    def _refuse_swallowed_rows(self) -> None:
        inner = csv.reader(self._row_lines[1:-1], delimiter=self.delimiter, quoting=csv.QUOTE_NONE)
        if sum(len(cells) == len(self.header) > 1 for cells in inner) >= max(
            MIN_SWALLOWED_ROWS, len(self._row_lines) // 2
        ):
            raise self._fault("a quote that is closed rows later")

    def _fault(self, reason: str) -> ValueError:
        return ValueError(
            f"{self._file}, {self._place()}: {reason} swallows {len(self._row_lines) - 1} further lines; double the "
            "quotes inside of cells, or set the source's option `quotes` to backslash (they are written \\\") or to "
            "none (they are text)"
        )

    def _place(self) -> str:
        return f"line {self._num_lines - len(self._row_lines) + 1}"

    def _text(self) -> str:
        return "".join(self._row_lines)

    def _remembered(self, lines: Iterator[str]) -> Iterator[str]:
        for line in lines:
            self._num_lines += 1
            self._row_lines.append(line)
            yield line
