"""The command `stillhouse embed`: vectors of a column of a file, written as parquet beside the file's own columns.

Shapes: B texts of a block, D dimensions of the embedding.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from stages.corpus.readers.files import rows_of_file
from stages.corpus.records import Unreadable, text_of
from stages.modeling.serving import checked_dimensions, checked_prompt, checked_ranges, rounded
from stages.usage.release import release_in_use, task_model

BLOCK_ROWS = 2048
VECTOR = "vector"


def embed(
    file: Path,
    *,
    out: Path,
    column: str = "text",
    task: str = "retrieval",
    prompt: Literal["query", "document"] = "document",
    dimensions: int = 0,
    precision: Literal["float32", "int8", "uint8", "binary", "ubinary"] = "float32",
    release: Path | None = None,
) -> None:
    """Embed a column of a file and write its rows with a column `vector`.

    Rows without a text get no vector. The file `out` appears only when every row is in it.

    Args:
        file: .txt with a text a line, .csv, .tsv, .json, .jsonl or .parquet.
        out: parquet file to write.
        column: column of the texts; a .txt file has the column `text`.
        task: task of the release whose model embeds the texts.
        prompt: role of the texts; only retrieval tells them apart.
        dimensions: number of dimensions to keep, from the first; 0 keeps all.
        precision: number format of the vectors; binary and ubinary pack eight dimensions in a byte.
        release: release folder; without it the registry's champion, or the last build's where there is none.

    Raises:
        ValueError: the file, the column, the task, the dimensions or the precision do not fit.

    Example:
        >>> embed(Path("faq.csv"), out=Path("vectors.parquet"), column="answer", dimensions=128)
    """
    if not out.parent.is_dir():
        raise ValueError(f"{out.parent}: there is no such folder; make it, or correct --out")
    used = release_in_use(release)
    folder = used.folder
    blocks = _blocks(file)
    encode = _encoder(folder, task, prompt, dimensions, precision)
    partial = out.with_name(f"{out.name}.partial")
    try:
        rows, vectors = _write(
            blocks, column, encode, partial, {"release": used.chosen, "task": task, "prompt": prompt}
        )
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    print(f"wrote {out}: {rows} rows, {vectors} with a vector, by {used.chosen}")


def _encoder(folder: Path, task: str, prompt: str, dimensions: int, precision: str) -> Callable[[list[str]], Any]:
    """Return a function from texts to their vectors [B, D] in the precision's format."""
    model = task_model(folder, task)
    limits = json.loads((folder / "calibration.json").read_text(encoding="utf-8"))["int8_limit"]
    try:
        size = checked_dimensions(dimensions, model)
        name, ranges = checked_prompt(prompt, model), checked_ranges(precision, size, limits[task])
    except Exception as error:  # the served model refuses in MLflow's terms
        raise ValueError(str(error)) from error

    def encode(texts: list[str]) -> Any:
        vectors = model.encode(
            texts, prompt_name=name, truncate_dim=size, normalize_embeddings=True, show_progress_bar=False
        )
        return rounded(vectors, precision, ranges)

    return encode


def _write(
    blocks: Iterator[pa.Table], column: str, encode: Callable[[list[str]], Any], file: Path, about: dict[str, str]
) -> tuple[int, int]:
    """Write each block with its vectors; returns the number of rows, and of those with a vector."""
    writer, rows, embedded = None, 0, 0
    example = encode(["text"])  # tells the number format, which the first rows may not show
    kind = pa.list_(pa.from_numpy_dtype(example.dtype))  # pyarrow reads no absent rows of a fixed size
    try:
        with tqdm(desc="embed", unit="text") as bar:
            for block in blocks:
                if column not in block.column_names:
                    raise ValueError(f"no column {column!r}: the file has {block.column_names}; give one with --column")
                if VECTOR in block.column_names:
                    raise ValueError(f"the file has a column {VECTOR!r} of its own; give that column another name")
                texts = [text if isinstance(text, str) and text.strip() else None for text in block[column].to_pylist()]
                table = block.append_column(VECTOR, _vectors(texts, encode, kind))
                if writer is None:
                    writer = pq.ParquetWriter(file, table.schema.with_metadata((table.schema.metadata or {}) | about))
                writer.write_table(table.cast(writer.schema))
                rows, embedded = rows + len(texts), embedded + sum(text is not None for text in texts)
                bar.update(len(texts))
    finally:
        if writer is not None:
            writer.close()
    if writer is None:
        raise ValueError("the file has no rows; nothing was written")
    return rows, embedded


def _vectors(texts: list[str | None], encode: Callable[[list[str]], Any], kind: pa.DataType) -> pa.Array:
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
