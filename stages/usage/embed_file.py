"""The command `stillhouse embed`: vectors of a column of a file, written as parquet beside the file's own columns.

Blocks of rows are written to a folder of parts beside the output and joined at the end, so that a run that was killed
goes on where it stopped. Shapes: B texts of a block, D dimensions of the embedding.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import sentence_transformers
import torch
from cyclopts import Parameter
from tqdm import tqdm

from stages.corpus.normalisation import normalise
from stages.corpus.readers.files import rows_of_file
from stages.corpus.records import Unreadable, text_of
from stages.modeling.serving import checked_dimensions, checked_prompt, checked_ranges, rounded
from stages.tracking.digests import digest
from stages.usage.release import ReleaseInUse, release_in_use, task_model

BLOCK_ROWS = 2048
VECTOR = "vector"
Encode = Callable[[list[str]], Any]  # texts -> their vectors [B, D]


@dataclass(frozen=True)
class VectorFormat:
    """What the vectors of a file are.

    Attributes
    ----------
    task
        Task of the release whose model embeds the texts.
    prompt
        Role of the texts; only retrieval tells them apart.
    dimensions
        Number of dimensions to keep, from the first; 0 keeps all.
    precision
        Number format of the vectors; binary and ubinary pack eight dimensions in a byte.
    """

    task: str = "retrieval"
    prompt: Literal["query", "document"] = "document"
    dimensions: int = 0
    precision: Literal["float32", "int8", "uint8", "binary", "ubinary"] = "float32"


def embed(
    file: Path,
    *,
    out: Path,
    column: str = "text",
    vectors: Annotated[VectorFormat, Parameter(name="*")] = VectorFormat(),
    release: Path | None = None,
) -> None:
    """Embed a column of a file and write its rows with a column `vector`.

    Rows without a text get no vector. The file `out` appears only when every row is in it. After a kill the same
    command goes on from the rows that are done, which wait in the folder `out`.parts.

    Args:
        file: .txt with a text a line, .csv, .tsv, .json, .jsonl or .parquet.
        out: parquet file to write.
        column: column of the texts; a .txt file has the column `text`.
        release: release folder; without it the registry's champion, or the last build's where there is none.

    Raises:
        ValueError: the file, the column, the task, the dimensions or the precision do not fit.

    Example:
        >>> embed(Path("faq.csv"), out=Path("vectors.parquet"), column="answer", vectors=VectorFormat(dimensions=128))
    """
    if not out.parent.is_dir():
        raise ValueError(f"{out.parent}: there is no such folder; make it, or correct --out")
    used, blocks = release_in_use(release), _blocks(file)
    encode = _encoder(used.folder, vectors)
    folder = out.with_name(f"{out.name}.parts")
    parts, kept = _write_parts(blocks, column, encode, folder, _about(file, column, used, vectors))
    rows, embedded = _join(parts, out)
    shutil.rmtree(folder)
    before = f" ({kept} of the rows by an earlier run)" if kept else ""
    print(f"wrote {out}: {rows} rows, {embedded} with a vector{before}, by {used.chosen}")


def _encoder(folder: Path, vectors: VectorFormat) -> Encode:
    """Return a function from texts to their vectors [B, D] in the precision's format."""
    model = task_model(folder, vectors.task)
    limits = json.loads((folder / "calibration.json").read_text(encoding="utf-8"))["int8_limit"]
    try:
        size, name = checked_dimensions(vectors.dimensions, model), checked_prompt(vectors.prompt, model)
        ranges = checked_ranges(vectors.precision, size, limits[vectors.task])
    except Exception as error:  # the served model refuses in MLflow's terms
        raise ValueError(str(error)) from error

    def encode(texts: list[str]) -> Any:
        found = model.encode(
            texts, prompt_name=name, truncate_dim=size, normalize_embeddings=True, show_progress_bar=False
        )
        return rounded(found, vectors.precision, ranges)

    return encode


def _about(file: Path, column: str, used: ReleaseInUse, vectors: VectorFormat) -> dict[str, str]:
    """Return all that determines the vectors, which is written into the metadata of every part."""
    described = {"column": column, "release": used.chosen, **asdict(vectors)}
    described |= {"input": digest(file), "model": digest(used.folder / "merged" / vectors.task)}
    described |= {"ranges": digest(used.folder / "calibration.json")}
    described |= {"libraries": f"torch {torch.__version__}, sentence-transformers {sentence_transformers.__version__}"}
    return {name: str(value) for name, value in described.items()}


def _write_parts(
    blocks: Iterator[pa.Table], column: str, encode: Encode, folder: Path, about: Mapping[str, str]
) -> tuple[list[Path], int]:
    """Write each block with its vectors to a file of its own, but for those that an earlier run finished.

    Returns:
        The files in order, and the number of rows of those that were there.
    """
    parts: list[Path] = []
    kept = 0
    example = encode(["text"])  # tells the number format, which the first rows may not show
    kind = pa.list_(pa.from_numpy_dtype(example.dtype))  # pyarrow reads no absent rows of a fixed size
    with tqdm(desc="embed", unit="text") as bar:
        for block in blocks:
            if column not in block.column_names:
                raise ValueError(f"no column {column!r}: the file has {block.column_names}; give one with --column")
            if VECTOR in block.column_names:
                raise ValueError(f"the file has a column {VECTOR!r} of its own; give that column another name")
            parts.append(folder / f"{len(parts):06}.parquet")
            if _is_done(parts[-1], len(block), about):
                kept += len(block)
            else:
                texts = [
                    text if isinstance(text, str) and normalise(text) else None for text in block[column].to_pylist()
                ]
                table = block.append_column(VECTOR, _vectors(texts, encode, kind))
                _write(table.replace_schema_metadata({**(table.schema.metadata or {}), **about}), parts[-1])
            bar.update(len(block))
    if not parts:
        raise ValueError("the file has no rows; nothing was written")
    return parts, kept


def _is_done(part: Path, rows: int, about: Mapping[str, str]) -> bool:
    """Say whether a part was written for the same rows in the same way."""
    try:
        found = pq.ParquetFile(part)
    except (FileNotFoundError, pa.ArrowInvalid):
        return False
    metadata = found.schema_arrow.metadata or {}
    same = all(metadata.get(name.encode()) == value.encode() for name, value in about.items())
    return same and found.metadata.num_rows == rows


def _write(table: pa.Table, file: Path) -> None:
    """Write a table under another name first, so that no half-written one is read."""
    file.parent.mkdir(exist_ok=True)
    partial = file.with_suffix(f".{os.getpid()}.partial")
    pq.write_table(table, partial)
    partial.replace(file)


def _join(parts: Sequence[Path], out: Path) -> tuple[int, int]:
    """Write the rows of all parts to one file; returns the number of rows, and of those with a vector."""
    rows, embedded, partial = 0, 0, parts[0].with_name("joined.partial")
    with pq.ParquetWriter(partial, pq.read_schema(parts[0])) as writer:
        for part in parts:
            table = pq.read_table(part)
            writer.write_table(table.cast(writer.schema))
            rows, embedded = rows + len(table), embedded + len(table) - table[VECTOR].null_count
    partial.replace(out)
    return rows, embedded


def _vectors(texts: list[str | None], encode: Encode, kind: pa.DataType) -> pa.Array:
    """Embed the texts; a row without one is null."""
    given = [text for text in texts if text is not None]
    vectors = iter(encode(given) if given else ())
    return pa.array([None if text is None else next(vectors) for text in texts], kind)


def _blocks(file: Path) -> Iterator[pa.Table]:
    """Read a file in blocks of rows with all of its columns; columns of text files are texts."""
    if not file.is_file():
        raise ValueError(f"{file}: there is no such file")
    if file.suffix == ".parquet":
        return (pa.Table.from_batches([batch]) for batch in pq.ParquetFile(file).iter_batches(BLOCK_ROWS))
    if file.suffix == ".txt":
        return (pa.table({"text": pa.array(lines, pa.string())}) for lines in _in_blocks(_lines(file)))
    return _tables(file)


def _in_blocks(rows: Iterable[Any]) -> Iterator[list[Any]]:
    remaining = iter(rows)
    while block := list(islice(remaining, BLOCK_ROWS)):
        yield block


def _lines(file: Path) -> Iterator[str]:
    try:
        with file.open(encoding="utf-8") as stream:
            for line in stream:
                yield line.rstrip("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: the text is not UTF-8 ({error.reason}); convert it") from error


def _tables(file: Path) -> Iterator[pa.Table]:
    names: list[str] = []
    for block in _in_blocks(rows_of_file(file, [])):
        for row in block:
            if isinstance(row, Unreadable):
                raise ValueError(f"{file}: {row.reason}: {row.text[:80]!r}; correct that row")
        names = names or list(dict.fromkeys(name for row in block for name in row))
        if late := sorted({name for row in block for name in row} - set(names)):
            raise ValueError(f"{file}: {late} first appear after row {BLOCK_ROWS}; write them in the first row, empty")
        yield pa.table({name: pa.array([_as_text(row.get(name)) for row in block], pa.string()) for name in names})


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else text_of(value) or None
