"""`stillhouse embed`: a file's texts become vectors beside its own columns."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sentence_transformers import SentenceTransformer

from stages.usage import embed_file
from stages.usage.embed_file import VectorFormat, embed

TEXTS = ["a copper still", "oak malt", "wort spirit house"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    file = tmp_path / "answers.csv"
    file.write_text("number,answer\n" + "".join(f"{at},{text}\n" for at, text in enumerate(TEXTS)))
    return file


def vectors(file: Path) -> np.ndarray:
    return np.array(pq.read_table(file)["vector"].to_pylist())


def test_vectors_are_those_of_sentence_transformers_and_columns_stay(table: Path, tiny_release: Path) -> None:
    out = table.with_suffix(".parquet")
    embed(table, out=out, column="answer", release=tiny_release)
    model = SentenceTransformer(str(tiny_release / "merged/retrieval"))
    np.testing.assert_allclose(vectors(out), model.encode(TEXTS, prompt_name="document"), atol=1e-6)
    assert pq.read_table(out)["number"].to_pylist() == ["0", "1", "2"]
    assert pq.read_schema(out).metadata[b"task"] == b"retrieval"


def test_queries_have_their_own_prompt(table: Path, tiny_release: Path) -> None:
    out = table.with_suffix(".parquet")
    embed(table, out=out, column="answer", vectors=VectorFormat(prompt="query"), release=tiny_release)
    model = SentenceTransformer(str(tiny_release / "merged/retrieval"))
    np.testing.assert_allclose(vectors(out), model.encode(TEXTS, prompt_name="query"), atol=1e-6)


def test_int8_uses_the_ranges_of_the_release(table: Path, tiny_release: Path) -> None:
    plain, small = table.with_name("plain.parquet"), table.with_name("small.parquet")
    embed(table, out=plain, column="answer", vectors=VectorFormat(dimensions=16), release=tiny_release)
    embed(
        table, out=small, column="answer", vectors=VectorFormat(dimensions=16, precision="int8"), release=tiny_release
    )
    step = 2 * 0.5 / 255
    expected = np.clip(np.floor((vectors(plain) + 0.5) / step), 0, 255) - 128
    assert np.abs(vectors(small) - expected).max() <= 1
    assert pq.read_schema(small).field("vector").type == pa.list_(pa.int8())


def test_binary_packs_eight_dimensions_in_a_byte(table: Path, tiny_release: Path) -> None:
    out = table.with_suffix(".parquet")
    embed(table, out=out, column="answer", vectors=VectorFormat(precision="ubinary"), release=tiny_release)
    assert vectors(out).shape == (3, 4)


def test_a_row_without_text_has_no_vector(tmp_path: Path, tiny_release: Path) -> None:
    file, out = tmp_path / "rows.jsonl", tmp_path / "vectors.parquet"
    file.write_text(
        "".join(json.dumps({"text": text, "more": {"a": 1}}) + "\n" for text in ("oak", None, " \u200b", "malt"))
    )
    embed(file, out=out, release=tiny_release)
    found = pq.read_table(out)
    assert [vector is None for vector in found["vector"].to_pylist()] == [False, True, True, False]
    assert found["more"].to_pylist() == ['{"a": 1}'] * 4


def test_parquet_and_lines_are_read_in_blocks(
    tmp_path: Path, tiny_release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed_file, "BLOCK_ROWS", 2)
    lines, parquet = tmp_path / "texts.txt", tmp_path / "texts.parquet"
    lines.write_text("\n".join(TEXTS) + "\n")
    pq.write_table(pa.table({"text": TEXTS, "number": [1, 2, 3]}), parquet)
    embed(lines, out=tmp_path / "a.parquet", release=tiny_release)
    embed(parquet, out=tmp_path / "b.parquet", release=tiny_release)
    np.testing.assert_allclose(vectors(tmp_path / "a.parquet"), vectors(tmp_path / "b.parquet"), atol=1e-6)
    assert pq.read_table(tmp_path / "b.parquet")["number"].to_pylist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"column": "title"}, "no column 'title': the file has ['number', 'answer']"),
        ({"vectors": VectorFormat(task="poetry")}, "got task 'poetry', expected one of"),
        ({"vectors": VectorFormat(dimensions=999)}, "expected 1 to 32"),
        ({"vectors": VectorFormat(dimensions=9, precision="int8")}, "no int8 range for dimensions=9"),
    ],
)
def test_a_refusal_leaves_the_earlier_file(
    table: Path, tiny_release: Path, settings: dict[str, object], message: str
) -> None:
    out = table.with_suffix(".parquet")
    out.write_bytes(b"earlier")
    with pytest.raises(ValueError, match=re.escape(message)):
        embed(table, out=out, release=tiny_release, **{"column": "answer"} | settings)  # type: ignore[arg-type]
    assert sorted(path.name for path in table.parent.iterdir()) == ["answers.csv", "answers.parquet"]
    assert out.read_bytes() == b"earlier"


@pytest.fixture
def stopped(table: Path, tiny_release: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file whose embedding stopped after two of three blocks; its parts are there."""

    def stop_at_the_third(texts: list[str], encode: Any, kind: Any) -> Any:
        if texts == TEXTS[2:]:
            raise KeyboardInterrupt
        return embedded(texts, encode, kind)

    embedded = embed_file._vectors
    monkeypatch.setattr(embed_file, "BLOCK_ROWS", 1)
    with monkeypatch.context() as stopping:
        stopping.setattr(embed_file, "_vectors", stop_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            embed(table, out=table.with_suffix(".parquet"), column="answer", release=tiny_release)
    assert not table.with_suffix(".parquet").exists()
    return table


def test_a_run_that_was_stopped_goes_on_and_gives_the_same_file(
    stopped: Path, tiny_release: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, whole = stopped.with_suffix(".parquet"), stopped.with_name("whole.parquet")
    embed(stopped, out=whole, column="answer", release=tiny_release)
    parts = out.with_name("answers.parquet.parts")
    written = {part.name: part.stat().st_mtime_ns for part in parts.iterdir()}
    assert sorted(written) == ["000000.parquet", "000001.parquet"]
    (parts / "000001.parquet").write_bytes(b"PAR1 a file that a machine lost half of")
    embed(stopped, out=out, column="answer", release=tiny_release)
    assert "3 rows, 3 with a vector (1 of the rows by an earlier run)" in capsys.readouterr().out
    assert out.read_bytes() == whole.read_bytes()
    assert not parts.exists()


@pytest.mark.parametrize("changed", ["input", "release", "task", "dimensions", "precision"])
def test_what_was_done_otherwise_is_done_anew(
    stopped: Path, tiny_release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: str
) -> None:
    release, vectors = tiny_release, VectorFormat()
    if changed == "input":
        stopped.write_text(stopped.read_text().replace("copper", "oak"))
    elif changed == "release":
        release = tmp_path / "later" / "tiny"
        shutil.copytree(tiny_release, release)
        shutil.copytree(release / "merged/clustering", release / "merged/retrieval", dirs_exist_ok=True)
    else:
        values: dict[str, Any] = {"task": "clustering", "dimensions": 8, "precision": "int8"}
        vectors = replace(vectors, **{changed: values[changed]})
    embed(stopped, out=stopped.with_suffix(".parquet"), column="answer", vectors=vectors, release=release)
    assert "earlier run" not in capsys.readouterr().out


def test_first_rows_without_text_do_not_decide_the_format(
    tmp_path: Path, tiny_release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed_file, "BLOCK_ROWS", 1)
    file, out = tmp_path / "rows.jsonl", tmp_path / "vectors.parquet"
    file.write_text('{"text": null}\n{"text": "oak"}\n')
    embed(file, out=out, vectors=VectorFormat(precision="ubinary"), release=tiny_release)
    assert pq.read_schema(out).field("vector").type == pa.list_(pa.uint8())


def test_metadata_of_the_file_stay(tmp_path: Path, tiny_release: Path) -> None:
    file, out = tmp_path / "rows.parquet", tmp_path / "vectors.parquet"
    pq.write_table(pa.table({"text": TEXTS}).replace_schema_metadata({"batch": "7"}), file)
    embed(file, out=out, release=tiny_release)
    assert pq.read_schema(out).metadata[b"batch"] == b"7"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"text,vector\noak,1\n", "column 'vector' of its own"),
        ("a.jsonl", b'{"text": "oak"}\n{"text": "malt", "late": "x"}\n', "['late'] first appear after row 1"),
        ("a.txt", "caf\xe9\n".encode("cp1252"), "a.txt: the text is not UTF-8"),
    ],
)
def test_nothing_of_a_file_is_lost_in_silence(
    tmp_path: Path, tiny_release: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, message: str
) -> None:
    monkeypatch.setattr(embed_file, "BLOCK_ROWS", 1)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(message)):
        embed(tmp_path / name, out=tmp_path / "vectors.parquet", release=tiny_release)


def test_an_absent_folder_is_named(table: Path, tiny_release: Path) -> None:
    with pytest.raises(ValueError, match="there is no such folder"):
        embed(table, out=table.parent / "absent/a.parquet", column="answer", release=tiny_release)


def test_a_row_that_cannot_be_read_is_named(tmp_path: Path, tiny_release: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "oak"}\n{"text": \n')
    with pytest.raises(ValueError, match=r"rows\.jsonl: not JSON"):
        embed(file, out=tmp_path / "vectors.parquet", release=tiny_release)
