"""Rows of parquet, JSON lines, CSV and TSV files, here or far away, plain or compressed, as streams.

A row that cannot be read is handed on as `Unreadable`, and reading goes on; a file that cannot be read is an error that
names it. Bytes that are not UTF-8 (or UTF-16 behind its mark) come as lone surrogates, which cleaning rejects.
"""

import csv
import io
import json
import lzma
import math
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from stages.corpus.locations import File, opened, size_of
from stages.corpus.readers.unreadable import Unreadable

Row = dict[str, Any]

# Characters of a row at most: a file without line ends must not end up in memory.
MAX_ROW = 64 * 2**20
# Text is packed 3 to 20 times; what unfolds further than this, and is large, is a bomb.
MAX_EXPANSION, FREE_EXPANSION = 200, 256 * 2**20
# Rows of a parquet file held at once.
BATCH_ROWS = 512
COMPRESSIONS = (".gz", ".bz2", ".xz")
_DAMAGE = (EOFError, zlib.error, lzma.LZMAError, csv.Error, pa.ArrowException, UnicodeError, OSError)


def rows_of_file(place: File, columns: Sequence[str]) -> Iterator[Row | Unreadable]:
    """The rows of a file in its order, with the named columns.

    Raises:
        ValueError: it is empty, damaged, no table, a bomb, or lacks a column.
        FileNotFoundError: it is not there.
    """
    suffix = _suffix(place)
    if suffix not in _ROWS:
        raise ValueError(f"{place}: expected one of {', '.join(_ROWS)}; convert it or correct the source's files")
    return _undamaged(place, _ROWS[suffix], columns)


def _undamaged(place: File, rows: Callable[..., Iterator[Any]], columns: Sequence[str]) -> Iterator[Row | Unreadable]:
    count = 0
    try:
        if size_of(place) == 0:
            raise ValueError(f"{place}: the file is empty; write it again or leave it out of the source's files")
        with opened(place) as stream:
            for row in rows(place, stream, columns):
                count += 1
                yield row
    except FileNotFoundError:
        raise
    except _DAMAGE as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(
            f"{place}: cannot be read beyond row {count} ({said}); it may be cut off or damaged: copy it again"
        ) from error


def _suffix(place: File) -> str:
    path = PurePosixPath(place.name)
    return (path.with_suffix("") if path.suffix in COMPRESSIONS else path).suffix


def _json_rows(place: File, stream: BinaryIO, columns: Sequence[str]) -> Iterator[Row | Unreadable]:
    text = _text(place, stream, newline="\n")
    for number, line in enumerate(_lines(place, text)):
        if number == 0 and line.lstrip().startswith("["):  # one array instead of lines
            yield from (_object(row, json.dumps(row)) for row in _array(place, line + text.read(MAX_ROW)))
        elif line.strip():
            yield _parsed(line.rstrip("\r\n"))


def _parsed(line: str) -> Row | Unreadable:
    try:
        return _object(json.loads(line), line)
    except RecursionError:
        return Unreadable("not JSON: nested too deep", line)
    except ValueError as error:
        return Unreadable(f"not JSON: {str(error).partition(':')[0].lower()}", line)


def _object(value: Any, line: str) -> Row | Unreadable:
    return value if isinstance(value, dict) else Unreadable("not a JSON object", line)


def _array(place: File, text: str) -> list[Any]:
    try:
        value: list[Any] = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place}: starts as a JSON array but is none ({error}); write one object a line") from error
    return value


def _delimited_rows(delimiter: str) -> Callable[[File, BinaryIO, Sequence[str]], Iterator[Row | Unreadable]]:
    def rows(place: File, stream: BinaryIO, columns: Sequence[str]) -> Iterator[Row | Unreadable]:
        csv.field_size_limit(MAX_ROW)
        taken: list[str] = []  # lines of the row being parsed
        lines = _lines(place, _text(place, stream, newline=""))
        cells = csv.reader(_noted(lines, taken), delimiter=delimiter)
        header = next(cells, [])
        if not header or len(set(header)) < len(header):
            raise ValueError(f"{place}: expected a first line of distinct column names, got {header[:20]}")
        while True:
            taken.clear()
            try:
                row = next(cells)
            except StopIteration:
                return
            except csv.Error as error:
                yield Unreadable(f"not CSV: {error}", "".join(taken))
                continue
            if len(row) == len(header):
                yield dict(zip(header, row, strict=True))
            elif row:
                yield Unreadable(f"not {len(header)} cells, as the header has", "".join(taken).rstrip("\r\n"))

    return rows


def _noted(lines: Iterator[str], taken: list[str]) -> Iterator[str]:
    for line in lines:
        taken.append(line)
        yield line


def _parquet_rows(place: File, stream: BinaryIO, columns: Sequence[str]) -> Iterator[Row]:
    file = pq.ParquetFile(_seekable(place, stream))
    missing = [name for name in columns if name not in file.schema_arrow.names]
    if missing:
        raise no_column(missing[0], file.schema_arrow.names)
    for batch in file.iter_batches(BATCH_ROWS, columns=list(columns)):
        yield from _python_rows(batch)


def _seekable(place: File, stream: BinaryIO) -> BinaryIO:
    """A parquet file is read from its end: what comes as a stream is copied to disk first."""
    if isinstance(place, Path):
        return stream
    copy: Any = tempfile.TemporaryFile()  # noqa: SIM115  (gone with its last reference)
    shutil.copyfileobj(stream, copy)
    copy.seek(0)
    seekable: BinaryIO = copy
    return seekable


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


_ROWS: dict[str, Callable[..., Iterator[Row | Unreadable]]] = {
    ".parquet": _parquet_rows,
    ".json": _json_rows,
    ".jsonl": _json_rows,
    ".csv": _delimited_rows(","),
    ".tsv": _delimited_rows("\t"),
}


def no_column(name: str, names: Sequence[str]) -> ValueError:
    """What to say of a column that rows do not have."""
    return ValueError(f"no column {name!r}: the rows have {sorted(names)[:40]}; correct the source's options")


def _text(place: File, stream: BinaryIO, newline: str) -> TextIO:
    buffered = io.BufferedReader(_Counted(place, stream), 2**18)
    start = buffered.peek(4)
    encoding = "utf-16" if start.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    return io.TextIOWrapper(buffered, encoding=encoding, errors="surrogateescape", newline=newline)


def _lines(place: File, text: TextIO) -> Iterator[str]:
    while line := text.readline(MAX_ROW):
        if len(line) >= MAX_ROW:
            raise ValueError(f"{place}: a line of over {MAX_ROW >> 20} Mi characters; break it up or cut its texts")
        yield line


class _Counted(io.RawIOBase):
    """A stream that stops a compressed file which unfolds without end."""

    def __init__(self, place: File, stream: BinaryIO) -> None:
        self._place, self._stream, self._count = place, stream, 0
        packed = size_of(place) if PurePosixPath(place.name).suffix in COMPRESSIONS else None
        self._most = math.inf if packed is None else max(FREE_EXPANSION, MAX_EXPANSION * packed)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        self._count += len(data)
        if self._count > self._most:
            raise ValueError(
                f"{self._place}: unfolds to more than {MAX_EXPANSION} times its size, as a compression bomb does; "
                "uncompress it yourself if it is none"
            )
        buffer[: len(data)] = data
        return len(data)
