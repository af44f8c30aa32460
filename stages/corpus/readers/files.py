"""Rows of parquet, JSON lines, CSV and TSV files, here or far away, plain or compressed, as streams.

A row that cannot be read is yielded as `Unreadable`, and reading goes on; a file that cannot be read is an error that
names it. Bytes that are not UTF-8 (or UTF-16 behind its mark) become lone surrogates, which cleaning rejects; a file
with many of them is refused with the encoding that it looks like.
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

from stages.corpus.locations import File, opened, refuse_pointer, size_of
from stages.corpus.readers.delimited import DelimitedRows
from stages.corpus.readers.encodings import EncodingCheck, utf_16_without_mark
from stages.corpus.readers.json_array import array_items
from stages.corpus.records import Record, Row, Unreadable

# Most characters of a row: a file without line ends must not end up in memory.
MAX_ROW = 64 * 2**20
# Text is packed 3 to 20 times; a large file that unpacks to more than this many times its size is a bomb.
MAX_EXPANSION, FREE_EXPANSION = 200, 256 * 2**20
# Characters that tell an array from lines of objects.
FIRST_CHARACTERS = 2**16
# Rows of a parquet file in memory at once.
BATCH_ROWS = 512
COMPRESSIONS = (".gz", ".bz2", ".xz")
_DAMAGE = (EOFError, zlib.error, lzma.LZMAError, csv.Error, pa.ArrowException, UnicodeError, OSError)


@dataclass(frozen=True)
class TextFormat:
    """How a table is written as text.

    Without an encoding it is UTF-8, without a delimiter what the file's name says; for quotes see `DelimitedRows`.
    """

    encoding: str | None = None
    delimiter: str | None = None
    quotes: str | None = None


PLAIN = TextFormat()


def rows_of_file(file: File, columns: Sequence[str], written: TextFormat = PLAIN) -> Iterator[Record]:
    """Read the rows of a file in its order; of parquet files, the named columns alone.

    Raises:
        LookupError: there is no such encoding.
        ValueError: it is empty, damaged, no table, a compression bomb, or lacks a column.
        FileNotFoundError: it is not there.
    """
    suffix = suffix_of(file)
    if suffix not in _READERS:
        raise ValueError(f"{file}: expected one of {', '.join(_READERS)}; convert it or correct the source's files")
    codecs.lookup(written.encoding or "utf-8")
    return _undamaged(file, functools.partial(_READERS[suffix], written=written), columns)


def suffix_of(file: File) -> str:
    """Return the end of a file's name that tells its format, in small letters and without a compression."""
    path = PurePosixPath(file.name.lower())
    return (path.with_suffix("") if path.suffix in COMPRESSIONS else path).suffix


def no_column(file: File | str, name: str, names: Sequence[str]) -> ValueError:
    """Make the error for a column that the rows of a file or data set do not have."""
    return ValueError(f"{file}: no column {name!r}: the rows have {sorted(names)[:40]}; correct the source's options")


def _undamaged(file: File, read: Callable[..., Iterator[Record]], columns: Sequence[str]) -> Iterator[Record]:
    count = 0
    try:
        if size_of(file) == 0:
            raise ValueError(f"{file}: the file is empty; write it again or leave it out of the source's files")
        refuse_pointer(file)
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
    start = text.readline(FIRST_CHARACTERS)
    if start.lstrip().startswith("["):  # one array instead of lines
        yield from _array(file, start, text)
        return
    for line in _lines(file, text, start, written.encoding):
        if line.strip():
            yield _parsed(line.rstrip("\r\n"))


def _array(file: File, start: str, text: TextIO) -> Iterator[Record]:
    count = 0
    try:
        for value in array_items(start, text, MAX_ROW):
            count += 1
            yield _object(value, json.dumps(value))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{file}: starts as a JSON array but is none behind object {count} ({error}); write one object a line"
        ) from error


def _parsed(line: str) -> Record:
    try:
        return _object(json.loads(line), line)
    except RecursionError:
        return Unreadable("not JSON: nested too deep", line)
    except ValueError as error:
        return Unreadable(f"not JSON: {str(error).partition(':')[0].lower()}", line)


def _object(value: Any, line: str) -> Record:
    return value if isinstance(value, dict) else Unreadable("not a JSON object", line)


def _csv_rows(file: File, stream: BinaryIO, columns: Sequence[str], written: TextFormat) -> Iterator[Record]:
    csv.field_size_limit(MAX_ROW)
    lines = _lines(file, _text(file, stream, "", written.encoding), "", written.encoding)
    delimiter = written.delimiter or ("\t" if ".tsv" in file.name.lower() else ",")
    rows = DelimitedRows(str(file), lines, delimiter, written.quotes)
    if missing := [name for name in columns if name not in rows.header]:
        raise no_column(file, missing[0], rows.header)
    yield from rows


def _parquet_rows(file: File, stream: BinaryIO, columns: Sequence[str], written: TextFormat) -> Iterator[Row]:
    table = pq.ParquetFile(_seekable(file, stream))
    missing = [name for name in columns if name not in table.schema_arrow.names]
    if missing:
        raise no_column(file, missing[0], table.schema_arrow.names)
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
    start = buffered.peek(256)
    is_utf_16 = start.startswith((b"\xff\xfe", b"\xfe\xff"))
    if given is None and not is_utf_16 and (codec := utf_16_without_mark(start)):
        raise ValueError(
            f"{file}: every second byte is zero, as in {codec}: set the source's option `encoding: {codec}`, or save "
            "the file as UTF-8"
        )
    encoding = "utf-16" if is_utf_16 else given or "utf-8-sig"
    return io.TextIOWrapper(buffered, encoding=encoding, errors="surrogateescape", newline=newline)


def _lines(file: File, text: TextIO, start: str, given: str | None) -> Iterator[str]:
    """Yield lines, of which the first begins with what was read of it; at the end check that they were UTF-8."""
    check = EncodingCheck(str(file)) if given is None else None
    line = start if start.endswith("\n") else start + text.readline(MAX_ROW)
    while line:
        if len(line) >= MAX_ROW:
            raise ValueError(f"{file}: a line of over {MAX_ROW >> 20} Mi characters; break it up or cut its texts")
        if check:
            check.see(line)
        yield line
        line = text.readline(MAX_ROW)
    if check:
        check.close()


class _LimitedStream(io.RawIOBase):
    """A stream that stops a compression bomb."""

    def __init__(self, file: File, stream: BinaryIO) -> None:
        self._file, self._stream, self._count = file, stream, 0
        packed = size_of(file) if PurePosixPath(file.name.lower()).suffix in COMPRESSIONS else None
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
