"""The curated contract on disk."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from stages.corpus.tables import REJECTED, SCHEMAS, SPLITS, read_split, read_table, write_table

ORIGIN = {"entity": "e", "language": "en", "license": "MIT"}
TEXTS: dict[str, dict[str, Any]] = {
    "pairs": {"query": "q", "document": "d", "negatives": ["n"], "origin": "given"},
    "scored": {"text_a": "a", "text_b": "b", "score": 1},
    "labelled": {"text": "t", "label": "l"},
    "documents": {"text": "t"},
    "parallel": {"text": "t", "translation": "u"},
}


def rows(kind: str) -> list[dict[str, Any]]:
    return [{"id": str(n), **ORIGIN, "source": "ab"[n % 2], **TEXTS[kind]} for n in range(5)]


@pytest.mark.parametrize("kind", SCHEMAS)
def test_rows_come_back_in_order_with_the_kinds_types(tmp_path: Path, kind: str) -> None:
    write_table(tmp_path / kind / "train.parquet", rows(kind), SCHEMAS[kind])
    table = read_split(tmp_path, kind, "train")
    assert table.schema.equals(SCHEMAS[kind])
    assert table.to_pylist() == rows(kind)
    assert [path.name for path in (tmp_path / kind).iterdir()] == ["train.parquet"]


def test_rows_of_some_sources(tmp_path: Path) -> None:
    write_table(tmp_path / "pairs" / "dev.parquet", rows("pairs"), SCHEMAS["pairs"])
    assert read_table(tmp_path / "pairs" / "dev.parquet", ["b"])["id"].to_pylist() == ["1", "3"]
    assert read_split(tmp_path, "pairs", "dev", ["a", "b"])["id"].to_pylist() == ["0", "1", "2", "3", "4"]
    with pytest.raises(ValueError, match=r"no dev rows of \['c'\]; see its counts\.json"):
        read_split(tmp_path, "pairs", "dev", ["c"])


def test_an_empty_split_is_written_and_refused_when_read(tmp_path: Path) -> None:
    for split in SPLITS:
        write_table(tmp_path / "scored" / f"{split}.parquet", [], SCHEMAS["scored"])
    assert read_table(tmp_path / "scored" / "dev.parquet").schema.equals(SCHEMAS["scored"])
    with pytest.raises(ValueError, match=r"no dev rows of \['any source'\]"):
        read_split(tmp_path, "scored", "dev")


def test_a_wrong_type_is_refused_and_leaves_the_table_that_was_there(tmp_path: Path) -> None:
    file = tmp_path / "scored" / "train.parquet"
    write_table(file, rows("scored"), SCHEMAS["scored"])
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
        write_table(file, [rows("scored")[0] | {"score": "high"}], SCHEMAS["scored"])
    assert len(read_table(file)) == 5


def test_rejected_rows_keep_their_texts(tmp_path: Path) -> None:
    row = {"source": "a", "kind": "pairs", "reason": "query: empty", "entity": "e", "texts": ["", "two"]}
    write_table(tmp_path / "rejected.parquet", [row], REJECTED)
    assert read_table(tmp_path / "rejected.parquet").to_pylist() == [row]
