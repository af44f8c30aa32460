"""Files as people have them: quotes, encodings, what Excel writes, arrays, pointers, and what editors leave behind."""

import json
from pathlib import Path

import pytest

from stages.corpus.locations import LEFT_BEHIND, matching_files
from stages.corpus.readers import files, json_array
from stages.corpus.readers.files import TextFormat, rows_of_file
from stages.corpus.records import Record, Unreadable
from stages.corpus.sources import read_records, source_files

ROWS = [(f"how do I mend lamp {number}?", f"bring lamp {number} to the counter", "tools") for number in range(60)]


def written(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def table(delimiter: str, changed: dict[int, str]) -> str:
    """A table of 60 rows, in some of which the answer is another text."""
    lines = [delimiter.join((query, changed.get(at, answer), topic)) for at, (query, answer, topic) in enumerate(ROWS)]
    return "\n".join([delimiter.join(("question", "answer", "topic")), *lines, ""])


def read(path: Path, **written_as: str) -> list[Record]:
    return list(rows_of_file(path, ["question"], TextFormat(**written_as)))


# Quotes


def test_a_lone_quote_in_a_tsv_is_text(tmp_path: Path) -> None:
    rows = read(written(tmp_path, "rows.tsv", table("\t", {11: '"bring it', 20: '20" pipe'})))
    assert len(rows) == 60
    assert rows[11] == {"question": ROWS[11][0], "answer": '"bring it', "topic": "tools"}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({11: '"bring it'}, "a quote that is not closed swallows 48 further lines"),
        ({11: '"bring it', 40: '"take it'}, "text behind a closing quote swallows 29 further lines"),
        ({11: '"bring it', 40: 'take it"'}, "a quote that is closed rows later swallows 29 further lines"),
    ],
)
def test_a_lone_quote_in_a_csv_is_a_fault_with_its_line(tmp_path: Path, changed: dict[int, str], says: str) -> None:
    with pytest.raises(ValueError, match=rf"rows\.csv, line 13: {says}; double the quotes .* `quotes` to backslash"):
        read(written(tmp_path, "rows.csv", table(",", changed)))


def test_text_behind_a_quote_within_a_line_rejects_the_row_alone(tmp_path: Path) -> None:
    rows = read(written(tmp_path, "rows.csv", table(",", {11: '"bring" it'})))
    assert len(rows) == 60
    assert [row for row in rows if isinstance(row, Unreadable)] == [
        Unreadable("not CSV: text behind a closing quote", f'{ROWS[11][0]},"bring" it,tools\n')
    ]


def test_quotes_behind_backslashes_are_read_where_they_are_declared_and_named_where_not(tmp_path: Path) -> None:
    path = written(tmp_path, "rows.csv", 'question,answer\nx,"a \\"b\\" c"\n')
    assert read(path, quotes="backslash") == [{"question": "x", "answer": 'a "b" c'}]
    (row,) = read(path)
    assert isinstance(row, Unreadable)
    assert row.reason == "not CSV: text behind a closing quote; the option `quotes: backslash` reads it"


def test_text_of_several_lines_in_a_cell_is_read_and_quotes_may_be_declared_as_text(tmp_path: Path) -> None:
    lines = "first, of all\nsecond\nthird, and so on\nfourth\nfifth"
    path = written(tmp_path, "rows.csv", f'question,answer\nx,"{lines}"\n')
    assert read(path) == [{"question": "x", "answer": lines}]
    assert read(written(tmp_path, "plain.csv", 'question,answer\n"x,y\n'), quotes="none")[0] == {
        "question": '"x',
        "answer": "y",
    }
    with pytest.raises(ValueError, match="got quotes 'single', expected one of double, backslash, none"):
        read(path, quotes="single")


# Encodings


def test_a_file_in_another_encoding_is_named_once_with_the_encoding_that_it_looks_like(tmp_path: Path) -> None:
    text = table(",", {at: f"in the café – {at}" for at in range(0, 60, 3)})
    path = written(tmp_path, "rows.csv", text.encode("cp1252"))
    with pytest.raises(ValueError, match=r"rows\.csv: 20 of 61 lines are not UTF-8; .* looks like cp1252: set "):
        read(path)
    assert read(path, encoding="cp1252")[3] == dict(
        zip(("question", "answer", "topic"), (ROWS[3][0], "in the café – 3", "tools"), strict=True)
    )
    lines = "".join(json.dumps({"question": f"ça {at}"}, ensure_ascii=False) + "\n" for at in range(9))
    with pytest.raises(ValueError, match=r"rows\.jsonl: 9 of 9 lines are not UTF-8"):
        read(written(tmp_path, "rows.jsonl", lines.encode("latin-1")))


def test_a_single_damaged_line_is_left_to_cleaning(tmp_path: Path) -> None:
    path = written(tmp_path, "rows.csv", b"question,answer\nx,caf\xe9\ny,caf\xc3\xa9\n")
    assert read(path) == [{"question": "x", "answer": "caf\udce9"}, {"question": "y", "answer": "café"}]


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_its_mark_is_named(tmp_path: Path, codec: str) -> None:
    path = written(tmp_path, "rows.csv", "question,answer\nx,y\n".encode(codec))
    with pytest.raises(ValueError, match=rf"every second byte is zero, as in {codec}: set .* `encoding: {codec}`"):
        read(path)
    assert read(path, encoding=codec) == [{"question": "x", "answer": "y"}]


# Excel


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.csv", "question,answer,,\nx,y,,\n"),
        ("rows.csv", "sep=;\nquestion;answer\nx;y\n"),
        ("FAQ.CSV", "\ufeffquestion,answer\r\nx,y\r\n"),
        ("rows.csv", '\ufeff"sep=\t"\r\nquestion\tanswer\r\nx\ty\r\n'),
    ],
)
def test_tables_as_excel_writes_them(tmp_path: Path, name: str, text: str) -> None:
    assert read(written(tmp_path, name, text)) == [{"question": "x", "answer": "y"}]


def test_a_message_of_a_missing_column_names_the_file(tmp_path: Path) -> None:
    for name, text in (("a.csv", "q,a\n1,2\n"), ("b.jsonl", '{"q": "x"}\n')):
        written(tmp_path, name, text)
        inputs = source_files((f"{tmp_path}/{name}",), {})
        with pytest.raises(ValueError, match=rf"{name}: no column 'question'"):
            list(read_records("rows.documents", inputs, {"text": "question"}))


# Arrays


def test_an_array_is_read_as_a_stream_on_one_line_or_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_array, "READ_CHARACTERS", 7)
    monkeypatch.setattr(files, "FIRST_CHARACTERS", 5)
    monkeypatch.setattr(files, "MAX_ROW", 150)
    rows = [{"question": f"how wide is box {at}, [really]?", "answer": {"x": [at]}} for at in range(30)]
    for indent in (None, 0, 2):
        assert read(written(tmp_path, "rows.json", json.dumps(rows, indent=indent))) == rows
    long = written(tmp_path, "long.json", json.dumps([{"question": "x" * 200}]))
    with pytest.raises(ValueError, match=r"none behind object 0 \(an object of over"):
        read(long)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[{"question": "x"}', "none behind object 1 .expected a comma, got its end"),
        ('[{"question": "x"} {"question": "y"}]', "none behind object 1 .expected a comma"),
        ('[{"question": "x"}] more', "none behind object 1 .expected its end, got 'm'"),
        ('[{"question": "x"},]', "none behind object 1 "),
        ("[nothing]", "none behind object 0 "),
    ],
)
def test_an_array_that_is_none_is_named_with_the_object_behind_which_it_breaks(
    tmp_path: Path, text: str, says: str
) -> None:
    with pytest.raises(ValueError, match=rf"rows\.json: starts as a JSON array but is {says}"):
        read(written(tmp_path, "rows.json", text))


# What is no text of people


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl", "rows.csv.gz", "page.md", "app.po"])
def test_a_pointer_of_git_lfs_is_named(tmp_path: Path, name: str) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{0:064d}\nsize 12345\n"
    path = written(tmp_path, name, pointer)
    with pytest.raises(ValueError, match=rf"{name}: is a Git LFS pointer, not the file; run git lfs pull"):
        source_files((str(path),), {})


def test_what_editors_and_systems_leave_behind_is_no_source(tmp_path: Path) -> None:
    left = [".#faq.csv", "._faq.csv", "~$faq.csv", "faq.csv~", "faq.csv.swp", ".DS_Store", "Thumbs.db"]
    for name in ("faq.csv", *left, ".ipynb_checkpoints/faq.csv", "__MACOSX/._faq.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "lost.csv").symlink_to("me@host.123:456")
    (tmp_path / "folder.csv").mkdir()
    assert matching_files(f"{tmp_path}/**/*") == [tmp_path / "faq.csv"]


def test_dvc_leaves_the_same_files_out() -> None:
    listed = Path(__file__).parents[2].joinpath(".dvcignore").read_text(encoding="utf-8").splitlines()
    assert {name.replace("#*#", "\\#*#") for name in LEFT_BEHIND} <= set(listed)


# BEIR


def test_numbers_are_names_in_a_beir_folder_and_odd_rows_are_rejected_alone(tmp_path: Path) -> None:
    corpus = [{"_id": 1, "title": "Hat", "text": "It warms."}, {"_id": "2", "text": ["A tree.", "x"]}]
    corpus += [{"_id": {"x": 1}, "text": "no name"}, {"_id": 4, "title": {"a": "b"}, "text": "no title"}]  # type: ignore[dict-item]
    queries = [{"_id": 7, "text": "head covering"}, {"_id": 8.0, "text": 99}, {"text": "nameless"}]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        written(tmp_path, f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    judged = "query-id\tcorpus-id\tscore\n7\t1\t2\n8\t2\tNaN\n8\t2\t1\n9\t2\tmuch\n9\t2\n"
    written(tmp_path, "train.tsv", judged)
    rows = list(read_records("beir.pairs", source_files((f"{tmp_path}/*",), {}), {}))
    assert [row for row in rows if isinstance(row, dict)] == [
        {"entity": "1", "query": "head covering", "document": "Hat It warms."},
        {"entity": "2", "query": "99", "document": "A tree."},
    ]
    assert [row.reason for row in rows if isinstance(row, Unreadable)] == [
        "score: expected a number",
        "not 3 cells, as the header has",
        "expected _id and text",
        "expected texts in _id, title and text, got dict",
        "expected texts in _id, title and text, got dict",
    ]
