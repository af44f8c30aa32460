"""`stillhouse new`: people's files become recipes that read all their rows, or one message says what to do."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.corpus.cleaning import clean
from stages.corpus.sources import source_to_read
from stages.inspection.command import Corrections, Wishes, new
from stages.recipe.recipe import Recipe, read


@pytest.fixture(autouse=True)
def _in_empty_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data/sources").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)


def rows(count: int) -> list[tuple[str, str]]:
    things = ("account", "password", "parcel", "order", "refund", "invoice")
    return [
        (
            f"How do I change the {things[number % 6]} with the number {number}?",
            f"Open the page of the {things[number % 6]}, choose entry {number} of the list and save the form.",
        )
        for number in range(count)
    ]


def table(
    columns: Sequence[str], found: Sequence[Sequence[Any]], delimiter: str = ",", encoding: str = "utf-8"
) -> Path:
    file = Path("faq.csv")
    with file.open("w", newline="", encoding=encoding) as stream:
        csv.writer(stream, delimiter=delimiter).writerows([columns, *found])
    return file


def recipe_of(*files: Path, wishes: Wishes | None = None, **given: str) -> Recipe:
    new(*files, corrections=Corrections(**given), wishes=wishes or Wishes())
    return read()


def clean_rows(recipe: Recipe, source: int = 0) -> int:
    section = recipe.curate.sources[source]
    found = clean(source_to_read(section, recipe.seed, recipe.distill.backbone.path), None)
    return sum(reason is None for batch in found for _, reason in batch)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_tables_of_every_encoding_and_delimiter_are_read_whole(encoding: str, delimiter: str) -> None:
    found = [(query, f"{document} It costs ½ of a café.") for query, document in rows(30)]
    recipe = recipe_of(table(("Ticket Title", "Resolution"), found, delimiter, encoding))
    assert recipe.adapt.tasks == ("retrieval",)
    assert clean_rows(recipe) == 30


def as_lines(file: Path, key: str = "answer") -> Path:
    file.write_text("\n".join(json.dumps({"question": query, key: text}) for query, text in rows(20)))
    return file


def as_array(file: Path) -> Path:
    file.write_text(json.dumps([{"question": query, "answer": text} for query, text in rows(20)], indent=1))
    return file


def as_parquet(file: Path) -> Path:
    queries, texts = zip(*rows(20), strict=True)
    pq.write_table(pa.table({"question": queries, "answer": texts}), file)
    return file


def as_bge(file: Path) -> Path:
    lines = [{"query": query, "pos": [text], "neg": [f"Not {text}"]} for query, text in rows(20)]
    file.write_text("\n".join(map(json.dumps, lines)))
    return file


@pytest.mark.parametrize(
    ("write", "name"),
    [(as_lines, "a.jsonl"), (as_array, "a.json"), (as_parquet, "a.parquet"), (as_bge, "bge.jsonl")],
)
def test_other_formats_are_read_whole(write: Callable[[Path], Path], name: str) -> None:
    assert clean_rows(recipe_of(write(Path(name)))) == 20


def test_negatives_of_bge_lines_and_triplets_are_kept() -> None:
    assert recipe_of(as_bge(Path("bge.jsonl"))).curate.sources[0].options["negatives"] == "neg"
    triplets = table(("anchor", "positive", "negative"), [(*pair, f"Not {pair[1]}") for pair in rows(20)])
    assert recipe_of(triplets, wishes=Wishes(force=True)).curate.sources[0].options["negatives"] == "negative"


def test_beir_folders_are_read() -> None:
    folder = Path("beir")
    (folder / "qrels").mkdir(parents=True)
    pairs = list(enumerate(rows(20)))
    (folder / "queries.jsonl").write_text("\n".join(json.dumps({"_id": f"q{n}", "text": q}) for n, (q, _) in pairs))
    (folder / "corpus.jsonl").write_text("\n".join(json.dumps({"_id": f"d{n}", "text": d}) for n, (_, d) in pairs))
    judged = "".join(f"q{n}\td{n}\t1\n" for n, _ in pairs)
    (folder / "qrels/test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    assert clean_rows(recipe_of(folder)) == 20


@pytest.mark.parametrize("count", [3, 12])
def test_a_folder_of_documents_becomes_pairs_of_headings_and_texts(count: int) -> None:
    manual = Path("work/manual")
    (manual / "deep").mkdir(parents=True)
    for number, (question, answer) in enumerate(rows(count)):
        more = " ".join([answer] * 3).replace("the list", f"list {number}")
        (manual / ("deep" if number % 2 else ".") / f"{number}.md").write_text(
            f"# Manual {number}\n\n{more}\n\n## {question}\n\n{more} Then it is done, says part {number}.\n"
        )
    (manual / "picture.png").write_bytes(b"png")
    recipe = recipe_of(manual, wishes=Wishes(no_holdout=True)) if count > 5 else None
    if recipe is None:
        with pytest.raises(ValueError, match="got 6 usable rows"):
            recipe_of(manual)
        return
    assert recipe.adapt.tasks == ("retrieval",)
    assert recipe.curate.sources[0].reader == "documents.folder"
    assert recipe.curate.sources[0].files == ("data/sources/manual/**/*.md",)
    assert clean_rows(recipe) == 24


def test_labels_add_classification_and_clustering() -> None:
    found = [(*pair, ("billing", "delivery")[number % 2]) for number, pair in enumerate(rows(40))]
    recipe = recipe_of(table(("Frage", "Antwort", "Kategorie"), found), language="en")
    assert recipe.adapt.tasks == ("retrieval", "clustering", "classification")
    assert clean_rows(recipe, 1) == 40


def test_labelled_texts_alone_train_no_retrieval() -> None:
    found = [(text, ("billing", "delivery")[number % 2]) for number, (_, text) in enumerate(rows(40))]
    assert recipe_of(table(("text", "topic"), found)).adapt.tasks == ("clustering", "classification")


def test_scored_pairs_train_text_matching_alone() -> None:
    found = [(*pair, number % 6) for number, pair in enumerate(rows(40))]
    recipe = recipe_of(table(("sentence1", "sentence2", "score"), found))
    assert recipe.adapt.tasks == ("text-matching",)
    assert recipe.curate.sources[0].options["scale"] == 5.0


def test_values_tell_questions_from_answers_where_names_do_not() -> None:
    recipe = recipe_of(table(("b", "a"), [(document, query) for query, document in rows(20)]))
    assert recipe.curate.sources[0].options == {"query": "a", "document": "b"}


def test_a_guess_that_several_columns_fit_is_refused_with_the_options_that_settle_it() -> None:
    file = table(("question", "query", "answer"), [(query, f"{query} Yes?", text) for query, text in rows(20)])
    with pytest.raises(ValueError, match="--query question or --query query"):
        new(file)
    assert recipe_of(file, query="query").curate.sources[0].options["query"] == "query"


@pytest.mark.parametrize("encoding", ["utf-8", "cp932"])
def test_a_language_that_the_teacher_does_not_know_is_refused_with_teachers_that_do(encoding: str) -> None:
    found = [
        (
            f"注文番号{number}のパスワードを忘れた場合はどうすればいいですか？",
            f"設定の画面を開いて、{number}番目の項目を選んでください。",
        )
        for number in range(12)
    ]
    with pytest.raises(ValueError, match=r"language: ja.*--teacher .*multilingual"):
        new(table(("質問", "回答"), found, encoding=encoding))
    assert not Path("params.yaml").exists()


def test_too_few_rows_are_refused_in_one_message() -> None:
    with pytest.raises(ValueError, match=r"9 usable rows of 9.*at least 10"):
        new(table(("question", "answer"), rows(9)))


def test_a_table_without_names_of_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="first line of distinct column names"):
        new(table(*(lambda found: (found[0], found[1:]))(rows(20))))


def test_a_recipe_is_not_written_over_without_force() -> None:
    file = table(("question", "answer"), rows(20))
    Path("params.yaml").write_text("name: mine\n")
    with pytest.raises(ValueError, match="--force"):
        new(file)
    assert Path("params.yaml").read_text() == "name: mine\n"
    assert recipe_of(file, wishes=Wishes(force=True)).name == "faq"


def test_without_holdout_no_row_is_kept_for_the_test() -> None:
    recipe = recipe_of(table(("question", "answer"), rows(12)), wishes=Wishes(no_holdout=True))
    assert recipe.curate.sources[0].splits.test == 0.0


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(10, 300), minutes=st.integers(1, 60), columns=st.sampled_from([2, 3]))
def test_every_recipe_is_valid_and_reads_the_rows_counted(count: int, minutes: int, columns: int) -> None:
    found = [(*pair, f"topic {number % 3}")[:columns] for number, pair in enumerate(rows(count))]
    wishes = Wishes(minutes=float(minutes), force=True)
    recipe = recipe_of(table(("question", "answer", "category")[:columns], found), wishes=wishes)
    assert clean_rows(recipe) == count
    for draw in recipe.adapt.retrieval.mixture:
        assert draw.batch_size <= count
