"""The format of a file, told by its name and its first bytes: encoding, delimiter, and names of columns."""

import csv
import io
import itertools
import re
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from stages.corpus.locations import opened
from stages.corpus.readers.delimited import DIALECTS, DelimitedRows
from stages.corpus.readers.encodings import likely_encoding, utf_16_without_mark
from stages.corpus.readers.files import TextFormat, rows_of_file, suffix_of
from stages.corpus.records import Unreadable

READ_BYTES, READ_LINES = 2**20, 50
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
TABLES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")


@dataclass(frozen=True)
class FileFormat:
    """The format of a table."""

    columns: tuple[str, ...]
    written: TextFormat
    description: str


def format_of(file: Path, encoding: str | None = None, delimiter: str | None = None) -> FileFormat:
    """Find the format of a table.

    Raises:
        ValueError: it is empty or no table, or several delimiters fit.
    """
    suffix = suffix_of(file)
    if suffix not in TABLES:
        raise ValueError(f"{file}: expected a table ({', '.join(TABLES)}), got {suffix or 'a name without an ending'}")
    if suffix == ".parquet":
        return FileFormat(tuple(pq.ParquetFile(file).schema_arrow.names), TextFormat(), "parquet")
    with opened(file) as stream:
        start = stream.read(READ_BYTES)
    if not start.strip():
        raise ValueError(f"{file}: the file is empty; write it again")
    codec, needed, described = _encoding(start, encoding)
    if suffix in (".json", ".jsonl"):
        written = TextFormat(needed, None)
        row = next((row for row in rows_of_file(file, (), written) if not isinstance(row, Unreadable)), None)
        if row is None:
            raise ValueError(f"{file}: got no JSON object; write one object a line, or an array of objects")
        return FileFormat(tuple(row), written, f"JSON, {described}")
    text = start.decode(codec, errors="replace")
    chosen = delimiter or _delimiter(file, text)
    complete = text[: text.rfind("\n") + 1] or text
    quotes = _quotes(file, complete, chosen)
    rows = DelimitedRows(str(file), io.StringIO(complete, newline=""), chosen, quotes)
    columns = tuple(rows.header)
    _check_header(file, columns)
    named = f"values between {DELIMITERS.get(rows.delimiter, repr(rows.delimiter))}"
    named += {"backslash": ", quotes behind backslashes", "none": ", quotes are text"}.get(quotes or "", "")
    by_name = "\t" if suffix == ".tsv" else ","
    written = TextFormat(needed, None if rows.delimiter == by_name else rows.delimiter, quotes)
    return FileFormat(columns, written, f"{named}, {described}")


def _encoding(start: bytes, given: str | None) -> tuple[str, str | None, str]:
    """Return the codec for the first bytes, the encoding that the reader must be told, and a description."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16", None, "UTF-16 (by its mark)"
    if given is not None:
        return given, given, f"{given} (as given)"
    if start.startswith(b"\xef\xbb\xbf"):
        return "utf-8-sig", None, "UTF-8 with a mark"
    if codec := utf_16_without_mark(start):
        return codec, codec, f"{codec.upper()} (every second byte is zero)"
    try:
        start[: start.rfind(b"\n") + 1 or None].decode()
    except UnicodeDecodeError:
        codec = likely_encoding(start)
        return codec, codec, f"{codec} (no UTF-8; guessed from its bytes, --encoding corrects it)"
    return "utf-8", None, "UTF-8"


def _delimiter(file: Path, text: str) -> str:
    shares: dict[str, tuple[float, int]] = {}
    complete = text[: text.rfind("\n") + 1] or text
    for delimiter in DELIMITERS:
        rows = [row for row in _parsed(complete, delimiter) if row]
        width = len(rows[0]) if rows else 0
        if width > 1:
            shares[delimiter] = sum(len(row) == width for row in rows) / len(rows), width
    if not shares:
        return "\t" if suffix_of(file) == ".tsv" else ","  # a single column
    best = max(share for share, _ in shares.values())
    fitting = [delimiter for delimiter, (share, _) in shares.items() if share == best]
    if len(fitting) > 1:
        options = " or ".join(f"--delimiter {delimiter!r}" for delimiter in fitting)
        raise ValueError(f"{file}: {' and '.join(DELIMITERS[one] for one in fitting)} both fit; say {options}")
    return fitting[0]


def _quotes(file: Path, text: str, delimiter: str) -> str | None:
    """Return the kind of quotes by which the first rows can be read; None where it is the usual one, or none fits."""
    for quotes in (None, *DIALECTS):
        try:
            rows = DelimitedRows(str(file), io.StringIO(text, newline=""), delimiter, quotes)
            if not any(isinstance(row, Unreadable) for row in itertools.islice(rows, READ_LINES)):
                return quotes
        except ValueError:
            continue
    return None


def _parsed(text: str, delimiter: str) -> list[list[str]]:
    try:
        kind = DIALECTS["none" if delimiter == "\t" else "double"] | {"strict": False}
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, **kind)
        return list(itertools.islice(rows, READ_LINES))
    except csv.Error:
        return []


def _check_header(file: Path, columns: tuple[str, ...]) -> None:
    sentence = next((name for name in columns if len(name) > 60 or re.search(r"[?？.]$", name.strip())), None)
    if sentence is not None or len(set(columns)) < len(columns) or not all(name.strip() for name in columns):
        raise ValueError(
            f"{file}: expected a first line of distinct column names, got {[name[:40] for name in columns[:8]]}; put "
            "names such as question,answer into a first line"
        )
