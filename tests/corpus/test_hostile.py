"""Hostile input: whatever a file holds, a source ends in rows and kept rejections, or in one error that names it."""

import bz2
import csv
import gzip
import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.corpus.readers import files
from stages.corpus.sources import read_records, source_files
from stages.recipe.fields import TEXT_FIELDS, Kind
from tests.corpus.builders import Ingested, reasons, source

PAIRS = {"query": "q", "document": "d"}
SCORED = {"text_a": "a", "text_b": "b", "score": "s", "scale": 5.0}
few = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


def ingested(path: Path, kind: Kind, options: dict[str, Any], folder: Path) -> Ingested:
    """A file through reading, cleaning and the search for repeats."""
    read = source([], kind, language="und", words=dict.fromkeys(TEXT_FIELDS[kind], (1, 50)))
    inputs = source_files((str(path),), {})
    return Ingested(replace(read, records=lambda: read_records(f"rows.{kind}", inputs, options)), folder)


def counted(path: Path, kind: Kind, options: dict[str, Any], folder: Path) -> Counter[str]:
    """Reasons of rejected rows; every row that was read is clean, or rejected with its texts."""
    found = ingested(path, kind, options, folder)
    rejected = found.rejected_by_cleaning
    assert len(found.clean) + len(rejected) == found.ingest.num_read, "nothing is lost"
    assert all(row["reason"] and row["texts"] is not None for row in rejected)
    return Counter(reasons(rejected)) | {"kept": len(found.kept)}


# Rows

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
lines = st.one_of(
    st.binary(max_size=60).filter(lambda line: b"\n" not in line),
    st.fixed_dictionaries({"q": values, "d": values}).map(lambda row: json.dumps(row).encode()),
    st.text(max_size=40).map(lambda text: json.dumps({"q": "a question", "d": text}).encode()),
    values.map(lambda value: json.dumps(value).encode()),
)


def not_utf8(line: bytes) -> bool:
    """Tell whether bytes cannot be read as UTF-8."""
    try:
        line.decode()
    except UnicodeDecodeError:
        return True
    return False


@pytest.mark.slow
@few
@given(st.lists(lines, max_size=12))
def test_any_json_lines_end_in_rows_and_rejections(tmp_path_factory: pytest.TempPathFactory, some: list[bytes]) -> None:
    folder = tmp_path_factory.mktemp("json")
    good = json.dumps({"q": "what is malt", "d": "sprouted grain"}).encode()
    (folder / "rows.jsonl").write_bytes(b"\n".join([good, *some]))
    found: Counter[str] = Counter()
    said = ""
    try:
        found = counted(folder / "rows.jsonl", "pairs", PAIRS, folder / "ingested")
    except ValueError as error:
        said = str(error)
    if said:
        assert "rows.jsonl" in said and "lines are not UTF-8" in said
        assert sum(map(not_utf8, some)) > 1, "a single damaged line is a rejected row"
        return
    blank = sum(1 for line in some if not line.decode(errors="surrogateescape").strip())
    assert found["kept"] >= 1
    assert sum(found.values()) <= 1 + len(some) - blank, "the others repeat an earlier row"


@few
@given(st.lists(st.lists(st.text(max_size=12), min_size=1, max_size=4), max_size=8), st.binary(max_size=30))
def test_any_csv_ends_in_rows_and_rejections(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], noise: bytes
) -> None:
    folder = tmp_path_factory.mktemp("csv")
    out = io.StringIO()
    csv.writer(out).writerows([["q", "d"], ["what is malt", "sprouted grain"], *rows])
    (folder / "rows.csv").write_bytes(out.getvalue().encode(errors="surrogatepass") + noise)
    assert counted(folder / "rows.csv", "pairs", PAIRS, folder / "ingested")["kept"] >= 1


@few
@given(st.binary(max_size=80))
def test_any_bytes_are_rows_or_an_error_that_names_the_file(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    for name in ("rows.jsonl", "rows.json", "rows.csv", "rows.parquet", "rows.jsonl.gz", "rows.csv.bz2", "rows.tsv.xz"):
        folder = tmp_path_factory.mktemp("bytes")
        (folder / name).write_bytes(data)
        said = ""
        try:
            counted(folder / name, "pairs", PAIRS, folder / "ingested")
        except ValueError as error:
            said = str(error)
        assert not said or name in said or "no column 'q'" in said


def test_each_malformed_line_is_kept_with_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    good = {"q": "a question", "d": "an answer"}
    path.write_bytes(
        b"\n".join(
            [
                json.dumps(good).encode(),
                b'{"q": "cut off',
                b"[1, 2]",
                b'{"q": "latin \xe9", "d": "mixed encodings"}',
                b'{"q": "null \\u0000 byte", "d": "a\\u0000b"}',
                b'{"q": "raw null \x00", "d": "x"}',
                b'{"q": {"deep": 1}, "d": "wrong type"}',
                b'{"q": "only a question"}',
                b'{"q": "lone \\ud800", "d": "surrogate"}',
                b"[" * 100_000,
                json.dumps({"q": "ten megabytes", "d": "word " * 2_000_000}).encode(),
                b"",
                json.dumps(good).encode(),
            ]
        )
    )
    found = ingested(path, "pairs", PAIRS, tmp_path / "ingested")
    assert Counter(reasons(found.rejected_by_cleaning)) == {
        "not JSON: unterminated string starting at": 1,
        "not a JSON object": 1,
        "query: not UTF-8": 2,
        "not JSON: invalid control character at": 1,
        "q: expected a text, got dict": 1,
        "no column d": 1,
        "not JSON: nested too deep": 1,
        "document: over 50 words": 1,
    }
    assert [row["query"] for row in found.kept] == ["a question", "null byte"]
    assert found.rejected_later == ["query: duplicate"], "the last row repeats the first"
    assert found.rejected_by_cleaning[0]["texts"] == ['{"q": "cut off']
    assert max(len(row["texts"][-1]) for row in found.rejected_by_cleaning) == 10_000_000, "the whole text"


def test_scores_of_wrong_type_or_range_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    scores = [5, "4.5", "high", None, -1, 7, [1], {"x": 1}, "inf", 10**400, True]
    path.write_text("".join(json.dumps({"a": f"a {n}", "b": "b", "s": s}) + "\n" for n, s in enumerate(scores)))
    assert counted(path, "scored", SCORED, tmp_path / "ingested") == {
        "s: expected a number, got str": 1,
        "s: expected a number, got list": 1,
        "s: expected a number, got dict": 1,
        "s: expected a number, got int": 1,
        "score: outside [0, 1]": 3,
        "score: empty": 1,
        "kept": 3,
    }


def test_duplicate_rows_and_labels_of_one_row_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("t,l,id\none,a,1\ntwo,a,1\nOne,a,2\nthree,b,3\nfour,,4\n")
    found = ingested(path, "labelled", {"text": "t", "label": "l", "entity": "id"}, tmp_path / "ingested")
    assert reasons(found.rejected_by_cleaning) == ["label: empty"]
    assert [row["text"] for row in found.kept] == ["one", "two"]
    assert found.rejected_later == ["text: duplicate", "label: of one row only"]


def test_csv_rows_of_other_width_are_kept_as_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b'\xef\xbb\xbfq,d\n"a, b","line\nbreak"\none\none,two,three\nfine,row\x00\n')
    found = ingested(path, "pairs", PAIRS, tmp_path / "ingested")
    assert [(row["reason"], row["texts"]) for row in found.rejected_by_cleaning] == [
        ("not 2 cells, as the header has", ["one"]),
        ("not 2 cells, as the header has", ["one,two,three"]),
    ]


def test_utf_16_is_read_behind_its_mark(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes("q,d\nwas ist Öl,ein Stoff\n".encode("utf-16"))
    assert counted(path, "pairs", PAIRS, tmp_path / "ingested") == {"kept": 1}


def test_text_in_parquet_that_is_not_utf_8_costs_its_row_alone(tmp_path: Path) -> None:
    column = pa.array([b"good", b"bad \xff"]).view(pa.string())
    pq.write_table(pa.table({"q": column, "d": ["one", "two"]}), tmp_path / "rows.parquet")
    assert counted(tmp_path / "rows.parquet", "pairs", PAIRS, tmp_path / "ingested") == {
        "query: not UTF-8": 1,
        "kept": 1,
    }


# Files


def write_parquet(path: Path) -> None:
    pq.write_table(
        pa.table({"q": [f"question {n}" for n in range(500)], "d": [f"answer {n}" for n in range(500)]}), path
    )


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl", "rows.csv", "rows.csv.gz", "rows.json"])
def test_an_empty_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=rf"{name}: the file is empty; write it again"):
        counted(tmp_path / name, "pairs", PAIRS, tmp_path / "ingested")


@pytest.mark.parametrize("left", [3, 50, 0.5, -1])
def test_a_truncated_parquet_is_named(tmp_path: Path, left: float) -> None:
    path = tmp_path / "rows.parquet"
    write_parquet(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(left * len(whole)) if left == 0.5 else int(left)])
    with pytest.raises(ValueError, match=r"rows\.parquet: cannot be read beyond row 0 .*copy it again"):
        counted(path, "pairs", PAIRS, tmp_path / "ingested")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_packed_lines_that_are_cut_off_are_named(tmp_path: Path, pack: Any) -> None:
    lines = "".join(json.dumps({"q": f"question {n * n}", "d": f"answer {n}"}) + "\n" for n in range(5000))
    path = tmp_path / f"rows.jsonl.{'gz' if pack is gzip.compress else 'bz2'}"
    path.write_bytes(pack(lines.encode())[:-2000])
    with pytest.raises(ValueError, match=r"rows\.jsonl\.\w+: cannot be read beyond row \d+ .*cut off or damaged"):
        counted(path, "pairs", PAIRS, tmp_path / "ingested")


def test_a_compression_bomb_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "FREE_EXPANSION", 2**20)
    line = json.dumps({"q": "a question", "d": "x" * 1000}) + "\n"
    (tmp_path / "lines.jsonl.gz").write_bytes(gzip.compress(line.encode() * 20_000))
    with pytest.raises(ValueError, match=r"lines\.jsonl\.gz: unpacks to more than 200 times its size"):
        counted(tmp_path / "lines.jsonl.gz", "pairs", PAIRS, tmp_path / "ingested")


def test_a_line_without_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_ROW", 2**20)
    (tmp_path / "zeros.csv.gz").write_bytes(gzip.compress(b"q,d\n" + b"0" * 2**22))
    with pytest.raises(ValueError, match=r"zeros\.csv\.gz: a line of over 1 Mi characters"):
        counted(tmp_path / "zeros.csv.gz", "pairs", PAIRS, tmp_path / "ingested")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("rows.csv", "q,q\n1,2\n", "distinct column names"),
        ("rows.csv", "q,answer\n1,2\n", "no column 'd'"),
        ("rows.json", '[{"q": 1, "d": 2}', "starts as a JSON array but is none"),
        ("rows.zip", "PK", r"expected one of \.parquet, \.json"),
        ("rows.jsonl", '{"question": 1}\n', "no column 'q': the rows have"),
    ],
)
def test_wrong_tables_are_named(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=says):
        counted(tmp_path / name, "pairs", PAIRS, tmp_path / "ingested")


def test_an_array_of_objects_is_read_as_rows(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps([{"q": "one", "d": "two"}, "neither", {"q": "three", "d": "four"}]))
    assert counted(tmp_path / "rows.json", "pairs", PAIRS, tmp_path / "ingested") == {"not a JSON object": 1, "kept": 2}
