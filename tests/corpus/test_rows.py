"""Tables as sources: files of each format, data sets laid out as the hub has them, BEIR folders; and entities."""

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from stages.corpus.cleaning import clean
from stages.corpus.entities import smallest_connected, text_entity
from stages.corpus.locations import HubDataset, matching_inputs
from stages.corpus.records import Unreadable
from stages.corpus.sources import ROW_READERS, read_records, source_files
from tests.corpus.builders import source

QUESTIONS = [
    {"question": "what is a hat", "answer": "A head covering.", "title": "Hat"},
    {"question": "what is oak", "answer": "A tree.", "title": "Oak"},
    {"question": "what is malt", "answer": "Sprouted grain.", "title": "Malt"},
]
COLUMNS = {"query": "question", "document": "answer"}


def save_data_set(folder: Path, configs: dict[str, dict[str, datasets.Dataset]]) -> Path:
    """A folder as the hub has it: parquet by config and split, and a card that declares them."""
    card = ["---", "configs:"]
    for config, splits in configs.items():
        card += [f"- config_name: {config}", "  data_files:"]
        for split, rows in splits.items():
            (folder / config).mkdir(parents=True, exist_ok=True)
            rows.to_parquet(str(folder / config / f"{split}-00000-of-00001.parquet"))
            card += [f"  - split: {split}", f"    path: {config}/{split}-*"]
    (folder / "README.md").write_text("\n".join([*card, "---", ""]), encoding="utf-8")
    return folder


def table(rows: list[dict[str, Any]]) -> datasets.Dataset:
    return datasets.Dataset.from_list(rows)


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    reverse = [{"question": row["answer"], "answer": row["question"]} for row in QUESTIONS]
    return save_data_set(
        tmp_path / "questions",
        {"pair": {"train": table(QUESTIONS), "dev": table(QUESTIONS[:1])}, "reverse": {"train": table(reverse)}},
    )


def read(reader: str, location: Path | str, **options: float | str) -> list[dict[str, Any]]:
    return list(read_records(reader, source_files((str(location),), {}), options))


def test_a_location_is_a_data_set_or_the_files_that_match(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}")
    assert matching_inputs("hub:someone/something") == [HubDataset("someone/something")]
    assert matching_inputs(f"{tmp_path}/*.jsonl") == [tmp_path / "a.jsonl"]


# Pairs


def test_config_and_split_of_a_data_set_are_read(questions: Path) -> None:
    location = f"hub:{questions}"
    records = read("rows.pairs", location, config="pair", split="train", entity="title", **COLUMNS)
    assert records == [
        {"entity": row["title"], "query": row["question"], "document": row["answer"]} for row in QUESTIONS
    ]
    assert len(read("rows.pairs", location, config="pair", split="dev", **COLUMNS)) == 1
    reverse = read("rows.pairs", location, config="reverse", split="train", **COLUMNS)
    assert reverse[0]["query"] == "A head covering."


def test_first_stops_after_so_many_rows_of_all_files(questions: Path) -> None:
    inputs = [HubDataset(str(questions)), HubDataset(str(questions))]
    records = list(read_records("rows.pairs", inputs, {"config": "pair", "split": "train", "first": 4.0, **COLUMNS}))
    assert [record["query"] for record in records] == [row["question"] for row in [*QUESTIONS, QUESTIONS[0]]]


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl", "rows.jsonl.gz", "rows.json", "rows.csv", "rows.tsv"])
def test_files_of_each_format_give_the_same_rows(tmp_path: Path, name: str) -> None:
    rows, path = table(QUESTIONS), tmp_path / name
    if ".parquet" in name:
        rows.to_parquet(str(path))
    elif ".json" in name:
        rows.to_json(str(path), compression="gzip" if name.endswith(".gz") else None)
    else:
        rows.to_csv(str(path), sep="\t" if name.endswith(".tsv") else ",", index=False)
    records = read("rows.pairs", path, **COLUMNS)
    assert [(one["query"], one["document"]) for one in records] == [
        (row["question"], row["answer"]) for row in QUESTIONS
    ]


def test_lines_of_bge_give_the_query_and_its_first_positive(tmp_path: Path) -> None:
    lines = [{"query": "a hat", "pos": ["It warms.", "It is worn."], "neg": ["A tree."]}, {"query": "none", "pos": []}]
    path = tmp_path / "bge.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    records = read("rows.pairs", path, query="query", document="pos")
    assert [(one["query"], one["document"]) for one in records] == [("a hat", "It warms."), ("none", "")]


def test_negatives_of_bge_and_of_triplets_are_read_and_a_row_may_have_none(tmp_path: Path) -> None:
    bge = tmp_path / "bge.jsonl"
    lines = [{"query": "a", "pos": ["b"], "neg": ["c", "d"]}, {"query": "e", "pos": ["f"]}]
    bge.write_text("".join(json.dumps(line) + "\n" for line in lines))
    records = read("rows.pairs", bge, query="query", document="pos", negatives="neg")
    assert [one["negatives"] for one in records] == [["c", "d"], [""]]
    triplets = tmp_path / "triplets.csv"
    triplets.write_text("anchor,positive,negative_1,negative_2\na,b,c,d\ne,f,g,\n")
    columns = {"query": "anchor", "document": "positive", "negatives": "negative_1, negative_2"}
    assert [one["negatives"] for one in read("rows.pairs", triplets, **columns)] == [["c", "d"], ["g", ""]]
    with pytest.raises(ValueError, match="neg"):
        read("rows.pairs", triplets, query="anchor", document="positive", negatives="neg")


def test_without_a_column_the_entity_is_the_documents_text(questions: Path) -> None:
    record = read("rows.pairs", f"hub:{questions}", config="pair", split="train", **COLUMNS)[0]
    assert record["entity"] == text_entity("A head covering.")
    assert text_entity("a  HEAD\ncovering.") == record["entity"] != text_entity("A head")


# Other kinds


def test_scores_are_scaled_and_rows_that_share_a_text_share_an_entity(tmp_path: Path) -> None:
    path = tmp_path / "scored.tsv"
    path.write_text("a\tb\tscore\none\ttwo\t5\nTwo\tthree\t1\nfour\tfive\t\n")
    records = read("rows.scored", path, text_a="a", text_b="b", score="score", scale=5.0)
    assert [(one["text_a"], one["text_b"]) for one in records] == [("one", "two"), ("Two", "three"), ("four", "five")]
    assert [one["score"] for one in records[:2]] == [1.0, 0.2]
    assert records[2]["score"] != records[2]["score"], "no score is not a number, which cleaning rejects"
    assert records[0]["entity"] == records[1]["entity"] != records[2]["entity"]


def test_labels_are_names_where_the_data_set_has_them(tmp_path: Path) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    named = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    folder = save_data_set(tmp_path / "named", {"default": {"test": named}})
    records = read("rows.labelled", f"hub:{folder}", split="test", text="text", label="label")
    assert [(one["text"], one["label"]) for one in records] == [("a", "yes"), ("b", "no")]
    several = tmp_path / "several.jsonl"
    several.write_text('{"text": "a", "label": [7, 8], "id": 3}\n')
    assert read("rows.labelled", several, text="text", label="label", entity="id") == [
        {"entity": "3", "text": "a", "label": "7"}
    ]


def test_documents_are_texts_alone(questions: Path) -> None:
    options = {"config": "pair", "split": "dev", "text": "answer"}
    assert read("rows.documents", f"hub:{questions}", entity="title", **options) == [
        {"entity": "Hat", "text": "A head covering."}
    ]
    assert read("rows.documents", f"hub:{questions}", **options)[0]["entity"] == text_entity("A head covering.")


def test_needles_are_planted_in_stretches_of_a_long_text(tmp_path: Path) -> None:
    path = tmp_path / "books.jsonl"
    sentences = [f"Sentence number {number} of the book." for number in range(8)]
    path.write_text(json.dumps({"title": "A book", "text": "\n".join(sentences)}) + "\n")
    options: dict[str, float | str] = {"text": "text", "entity": "title", "stretch_words": 24.0}
    records = read("rows.needles", path, seed=1.0, **options)
    assert len(records) == 2
    for record, own in zip(records, (sentences[:4], sentences[4:]), strict=True):
        assert record["entity"] == "A book"
        assert all(sentence in record["document"] for sentence in own)
        assert record["query"] not in record["document"]
        assert len(record["document"]) > len(" ".join(own))
    assert records == read("rows.needles", path, seed=1.0, **options) != read("rows.needles", path, seed=2.0, **options)


# Faults


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({}, ValueError, "questions: no split named; give one"),
        ({"split": "train"}, ValueError, r"questions: Config name is missing.*\['pair', 'reverse'\]; correct config"),
        ({"split": "train", "config": "pairs"}, ValueError, r"'pairs' not found. Available: \['pair', 'reverse'\]"),
        ({"split": "test", "config": "pair"}, ValueError, r"Bad split: test. Available splits: \['train', 'dev'\]"),
        ({"splits": "train"}, ValueError, r"reader rows\.pairs: .*'splits'; correct the source's options"),
    ],
)
def test_what_a_data_set_does_not_have_is_named(
    questions: Path, options: dict[str, str], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        read("rows.pairs", f"hub:{questions}", **options, **COLUMNS)


def test_a_data_set_out_of_reach_is_named_with_what_to_do() -> None:
    with pytest.raises(FileNotFoundError, match=r"data set nobody/nothing: neither a folder nor .* hub:FOLDER"):
        read("rows.pairs", "hub:nobody/nothing", split="train", **COLUMNS)


def test_wrong_columns_files_and_readers_are_refused(questions: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no column 'ask': the rows have \['answer', 'question', 'title'\]"):
        read("rows.pairs", f"hub:{questions}", config="pair", split="train", query="ask", document="answer")
    (tmp_path / "notes.docx").write_text("")
    with pytest.raises(ValueError, match=r"notes\.docx: expected one of \.parquet, .*convert it"):
        read("rows.pairs", tmp_path / "notes.docx", **COLUMNS)
    with pytest.raises(ValueError, match=r"wikipedia\.leads reads files, got data set questions; use rows\.pairs"):
        read("wikipedia.leads", "hub:questions")
    names = ("pairs", "scored", "labelled", "documents", "parallel", "needles")
    assert set(ROW_READERS) == {f"rows.{name}" for name in names}


# BEIR


def test_a_beir_folder_gives_each_query_its_best_judged_document(tmp_path: Path) -> None:
    corpus = [{"_id": "d1", "title": "Hat", "text": "It warms."}, {"_id": "d2", "text": "A tree."}, {"_id": "d3"}]
    queries = [{"_id": "q1", "text": "head covering"}, {"_id": "q2", "text": "oak"}, {"_id": "q3", "text": "nothing"}]
    for name, lines in (("corpus", corpus), ("queries", queries)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    judged = "query-id\tcorpus-id\tscore\nq1\td2\t1\nq1\td1\t2\nq2\td2\t1\nq3\td3\t0\n"
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "train.tsv").write_text(judged)
    assert read("beir.pairs", f"{tmp_path}/**/*") == [
        {"entity": "d1", "query": "head covering", "document": "Hat It warms."},
        {"entity": "d2", "query": "oak", "document": "A tree."},
        Unreadable("expected _id and text", "{'_id': 'd3'}"),
    ]
    with pytest.raises(ValueError, match=r"needs one queries\.jsonl"):
        read("beir.pairs", f"{tmp_path}/qrels/*")


# Entities


def test_components_join_what_is_linked_through_others() -> None:
    found = smallest_connected(np.array([("d", "c"), ("b", "a"), ("c", "b"), ("y", "x")]))
    assert found.tolist() == ["a", "a", "a", "x"]


# Languages


def test_rows_that_say_their_language(tmp_path: Path) -> None:
    lines = [
        "q,d,tag",
        "what is a hat,un couvre-chef,en-fr",
        "o que é um chapéu,cobre a cabeça,pt_BR",
        "what is oak,a tree,",
    ]
    (tmp_path / "rows.csv").write_text("\n".join(lines), encoding="utf-8")
    columns = {"query": "q", "document": "d", "language": "tag"}
    records = read("rows.pairs", tmp_path / "rows.csv", **columns)
    assert [row["language"] for row in records] == ["en-fr", "pt-BR", ""]
    (judged,) = clean(source(records, language="mul"), None)
    assert [reason for _, reason in judged] == [None, None, "language: no code such as en, pt-BR or en-de"]
    assert judged[0][0]["language"] == "en-fr"
    for reader, columns in (("rows.labelled", {"text": "q", "label": "d"}), ("rows.documents", {"text": "q"})):
        assert read(reader, tmp_path / "rows.csv", **columns, language="tag")[1]["language"] == "pt-BR"
