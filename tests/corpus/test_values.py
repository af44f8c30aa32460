"""Values of cells: one spelling in every format, what is missing is missing, and text stays text."""

import datetime as dt
import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.corpus.cleaning import clean
from stages.corpus.records import text_of
from stages.corpus.sources import read_records, source_files
from tests.corpus.builders import source
from tests.corpus.test_rows import save_data_set


def labels(location: Path | str, **options: Any) -> list[Any]:
    options = {"text": "text", "label": "label"} | options
    return [row["label"] for row in read_records("rows.labelled", source_files((str(location),), {}), options)]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"),
        (-0.0, "0"),
        (2.5, "2.5"),
        (1e16, "10000000000000000"),
        (1e-7, "0.0000001"),
        (Decimal("1.50"), "1.5"),
        (Decimal("100"), "100"),
        (Decimal("12345678901234567890123456789012345678"), "12345678901234567890123456789012345678"),
        (math.nan, ""),
        (-math.inf, ""),
        (Decimal("NaN"), ""),
        (None, ""),
        ([], ""),
        ([math.nan, "a"], ""),
        (True, "true"),
        (0, "0"),
        (dt.date(2026, 11, 30), "2026-11-30"),
        (dt.datetime(2026, 11, 30), "2026-11-30"),
        (dt.datetime(2026, 11, 30, 10, 5), "2026-11-30 10:05:00"),
        (dt.datetime(2026, 11, 30, tzinfo=dt.UTC), "2026-11-30 00:00:00+00:00"),
        ("nan", "nan"),
        ("NA", "NA"),
    ],
)
def test_a_value_has_one_spelling(value: Any, text: str) -> None:
    assert text_of(value) == text


@pytest.mark.parametrize("value", [{"a": 1}, b"bytes", [["a"]]])
def test_what_is_no_text_is_named(value: Any) -> None:
    with pytest.raises(TypeError, match=type(value).__name__):
        text_of(value)


def test_integers_with_gaps_booleans_and_dates_read_the_same_from_every_format(tmp_path: Path) -> None:
    whole, day = [1, None, 3], dt.date(2026, 11, 30)
    columns = {"text": ["a", "b", "c"], "label": whole, "flag": [True, None, False], "day": [day, None, day]}
    lines = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line, default=str) + "\n" for line in lines))
    (tmp_path / "nan.jsonl").write_text(
        "".join(json.dumps(line, default=str).replace("null", "NaN") + "\n" for line in lines)
    )
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    with_gaps = {"label": pa.array([1.0, math.nan, 3.0]), "day": pa.array(columns["day"]).cast(pa.timestamp("ns"))}
    pq.write_table(pa.table(columns | with_gaps), tmp_path / "pandas.parquet")
    (tmp_path / "rows.csv").write_text("text,label,flag,day\na,1,true,2026-11-30\nb,,,\nc,3,false,2026-11-30\n")
    for file in sorted(tmp_path.iterdir()):
        assert labels(file) == ["1", "", "3"], file.name
        assert labels(file, label="flag") == ["true", "", "false"], file.name
        assert labels(file, label="day") == ["2026-11-30", "", "2026-11-30"], file.name


def test_text_that_looks_missing_or_numeric_is_the_same_text_below_the_hubs_reader(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\nNA,007\nNone,True\nnull,1.0\nn/a,\n")
    here, hub = tmp_path / "train.csv", f"hub:{tmp_path}"
    assert labels(here) == labels(hub, split="train") == ["007", "True", "1.0", ""]
    texts = {"text": "label", "label": "text"}
    assert labels(here, **texts) == labels(hub, split="train", **texts) == ["NA", "None", "null", "n/a"]


def test_a_class_label_below_zero_is_missing(tmp_path: Path) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    rows = datasets.Dataset.from_dict({"text": list("abc"), "label": [1, -1, None]}, features=features)
    folder = save_data_set(tmp_path / "set", {"default": {"train": rows}})
    assert labels(f"hub:{folder}", split="train") == ["yes", "", ""]


def test_missing_texts_labels_and_scores_are_rejected_as_empty(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(
        '{"a": "one", "b": NaN, "s": 1}\n{"a": "one", "b": "two", "s": NaN}\n{"a": "1", "b": "2", "s": " "}\n'
    )
    options = {"text_a": "a", "text_b": "b", "score": "s", "scale": 1.0}
    records = list(read_records("rows.scored", [file], options))
    (judged,) = clean(source(records, "scored"), None)
    assert [reason for _, reason in judged] == ["text_b: empty", "score: empty", "score: empty"]
