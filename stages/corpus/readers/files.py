"""Rows of parquet, JSON lines, CSV and TSV files, here or far away, plain or compressed, as streams.

A row that cannot be read is yielded as `Unreadable`, and reading goes on; a file that cannot be read is an error that
names it. Bytes that are not UTF-8 (or UTF-16 behind its mark) become lone surrogates, which cleaning rejects.
"""

import codecs
import csv
import functools
import io
import json
import lzma
import math
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from stages.corpus.locations import File, opened, size_of
from stages.corpus.records import Record, Row, Unreadable

# Most characters of a row: a file without line ends must not end up in memory.
MAX_ROW = 64 * 2**20
# Text is packed 3 to 20 times; a large file that unpacks to more than this many times its size is a bomb.
MAX_EXPANSION, FREE_EXPANSION = 200, 256 * 2**20
# Rows of a parquet file in memory at once.
BATCH_ROWS = 512
COMPRESSIONS = (".gz", ".bz2", ".xz")
_DAMAGE = (EOFError, zlib.error, lzma.LZMAError, csv.Error, pa.ArrowException, UnicodeError, OSError)


@dataclass(frozen=True)
class TextFormat:
    """How a table is written as text; without an encoding UTF-8, without a delimiter what the file's name says."""

    encoding: str | None = None
    delimiter: str | None = None


PLAIN = TextFormat()


def rows_of_file(file: File, columns: Sequence[str], written: TextFormat = PLAIN) -> Iterator[Record]:
    """Read the rows of a file in its order; of parquet files, the named columns alone.

    Raises:
        LookupError: there is no such encoding.
        ValueError: it is empty, damaged, no table, a compression bomb, or lacks a column.
        FileNotFoundError: it is not there.
    """
    path = PurePosixPath(file.name)
    suffix = (path.with_suffix("") if path.suffix in COMPRESSIONS else path).suffix.lower()
    if suffix not in _READERS:
        raise ValueError(f"{file}: expected one of {', '.join(_READERS)}; convert it or correct the source's files")
    codecs.lookup(written.encoding or "utf-8")
    return _undamaged(file, functools.partial(_READERS[suffix], written=written), columns)


def no_column(name: str, names: Sequence[str]) -> ValueError:
    """Make the error for a column that rows do not have."""
    return ValueError(f"no column {name!r}: the rows have {sorted(names)[:40]}; correct the source's options")


def _undamaged(file: File, read: Callable[..., Iterator[Record]], columns: Sequence[str]) -> Iterator[Record]:
    count = 0
    try:
        if size_of(file) == 0:
            raise ValueError(f"{file}: the file is empty; write it again or leave it out of the source's files")
        with opened(file) as stream:
            for row in read(file, stream, columns):
                count += 1
                yield row
    except FileNotFoundError:
        raise
    except _DAMAGE as error:
        message = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(
            f"{file}: cannot be read beyond row {count} ({message}); it may be cut off or damaged: copy it again"
        ) from error


def _json_rows(file: File, stream: BinaryIO, _columns: Sequence[str], written: TextFormat) -> Iterator[Record]:
    text = _text(file, stream, "\n", written.encoding)
    for number, line in enumerate(_lines(file, text)):
        if number == 0 and line.lstrip().startswith("["):  # one array instead of lines
            yield from (_object(row, json.dumps(row)) for row in _array(file, line + text.read(MAX_ROW)))
        elif line.strip():
            yield _parsed(line.rstrip("\r\n"))


def _parsed(line: str) -> Record:
    try:
        return _object(json.loads(line), line)
    except RecursionError:
        return Unreadable("not JSON: nested too deep", line)
    except ValueError as error:
        return Unreadable(f"not JSON: {str(error).partition(':')[0].lower()}", line)


def _object(value: Any, line: str) -> Record:
    return value if isinstance(value, dict) else Unreadable("not a JSON object", line)


def _array(file: File, text: str) -> list[Any]:
    try:
        value: list[Any] = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: starts as a JSON array but is none ({error}); write one object a line") from error
    return value


def _csv_rows(file: File, stream: BinaryIO, _columns: Sequence[str], written: TextFormat) -> Iterator[Record]:
    csv.field_size_limit(MAX_ROW)
    lines_of_row: list[str] = []
    lines = _remembered(_lines(file, _text(file, stream, "", written.encoding)), lines_of_row)
    delimiter = "\t" if ".tsv" in PurePosixPath(file.name.lower()).suffixes else ","
    cells = csv.reader(lines, delimiter=written.delimiter or delimiter)
    header = next(cells, [])
    if not header or len(set(header)) < len(header):
        raise ValueError(f"{file}: expected a first line of distinct column names, got {header[:20]}")
    while True:
        lines_of_row.clear()
        try:
            row = next(cells)
        except StopIteration:
            return
        except csv.Error as error:
            yield Unreadable(f"not CSV: {error}", "".join(lines_of_row))
            continue
        if len(row) == len(header):
            yield dict(zip(header, row, strict=True))
        elif row:
            yield Unreadable(f"not {len(header)} cells, as the header has", "".join(lines_of_row).rstrip("\r\n"))


def _remembered(lines: Iterator[str], lines_of_row: list[str]) -> Iterator[str]:
    for line in lines:
        lines_of_row.append(line)
        yield line


def _parquet_rows(file: File, stream: BinaryIO, columns: Sequence[str], written: TextFormat) -> Iterator[Row]:
    table = pq.ParquetFile(_seekable(file, stream))
    missing = [name for name in columns if name not in table.schema_arrow.names]
    if missing:
        raise no_column(missing[0], table.schema_arrow.names)
    for batch in table.iter_batches(BATCH_ROWS, columns=list(columns)):
        yield from _python_rows(batch)


def _seekable(file: File, stream: BinaryIO) -> Any:
    """Copy a stream to disk, since a parquet file is read from its end."""
    if isinstance(file, Path):
        return stream
    copy = tempfile.TemporaryFile()  # noqa: SIM115  (deleted with its last reference)
    shutil.copyfileobj(stream, copy)
    copy.seek(0)
    return copy


def _python_rows(batch: pa.RecordBatch) -> list[Row]:
    try:
        rows: list[Row] = batch.to_pylist()
    except UnicodeDecodeError:  # parquet promises UTF-8, and not all writers keep to it
        raw = pa.table({name: _as_bytes(batch[name]) for name in batch.schema.names}).to_pylist()
        rows = [{name: _decoded(value) for name, value in row.items()} for row in raw]
    return rows


def _as_bytes(column: pa.Array) -> pa.Array:
    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    return column.cast(pa.binary()) if is_text else column


def _decoded(value: Any) -> Any:
    return value.decode(errors="surrogateescape") if isinstance(value, bytes) else value


_READERS: dict[str, Callable[..., Iterator[Record]]] = {
    ".parquet": _parquet_rows,
    ".json": _json_rows,
    ".jsonl": _json_rows,
    ".csv": _csv_rows,
    ".tsv": _csv_rows,
}


def _text(file: File, stream: BinaryIO, newline: str, given: str | None) -> TextIO:
    buffered = io.BufferedReader(_LimitedStream(file, stream), 2**18)
    is_utf_16 = buffered.peek(4).startswith((b"\xff\xfe", b"\xfe\xff"))
    encoding = "utf-16" if is_utf_16 else given or "utf-8-sig"
    return io.TextIOWrapper(buffered, encoding=encoding, errors="surrogateescape", newline=newline)


def _lines(file: File, text: TextIO) -> Iterator[str]:
    while line := text.readline(MAX_ROW):
        if len(line) >= MAX_ROW:
            raise ValueError(f"{file}: a line of over {MAX_ROW >> 20} Mi characters; break it up or cut its texts")
        yield line


class _LimitedStream(io.RawIOBase):
    """A stream that stops a compression bomb."""

    def __init__(self, file: File, stream: BinaryIO) -> None:
        self._file, self._stream, self._count = file, stream, 0
        packed = size_of(file) if PurePosixPath(file.name).suffix in COMPRESSIONS else None
        self._most = math.inf if packed is None else max(FREE_EXPANSION, MAX_EXPANSION * packed)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        self._count += len(data)
        if self._count > self._most:
            raise ValueError(
                f"{self._file}: unpacks to more than {MAX_EXPANSION} times its size, as a compression bomb does; "
                "unpack it yourself if it is none"
            )
        buffer[: len(data)] = data
        return len(data)
