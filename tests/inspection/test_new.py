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

from stages.corpus.cleaning import clean, split_of
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
    with pytest.raises(ValueError, match=r"9 readable rows.*at least 10"):
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


TEXTS = [text for _, text in rows(80)]


def labelled(labels: Sequence[str]) -> Path:
    return table(("text", "label"), list(zip(TEXTS, labels, strict=False)))


@pytest.mark.parametrize("labels", [list("ab" * 6), [*"bbbb", *"a" * 20]])
def test_labels_are_split_so_that_each_split_has_two_of_them(labels: list[str]) -> None:
    recipe = recipe_of(labelled(labels))
    found = clean(source_to_read(recipe.curate.sources[0], recipe.seed, recipe.distill.backbone.path), None)
    of_split: dict[str, set[str]] = {}
    for row, _ in (judged for batch in found for judged in batch):
        split = split_of(row["entity"], source_to_read(recipe.curate.sources[0], recipe.seed, ""))
        of_split.setdefault(split, set()).add(row["label"])
    assert {split: len(seen) for split, seen in of_split.items()} == {"train": 2, "dev": 2, "test": 2}


@pytest.mark.parametrize("labels", [["a"] * 39 + ["b"], [*"bbb", *"a" * 60]])
def test_labels_that_cannot_be_in_every_split_are_refused_with_the_reason(labels: list[str]) -> None:
    with pytest.raises(ValueError, match="classification \\(too few rows of a second label"):
        new(labelled(labels))


def test_scored_pairs_that_share_texts_are_counted_as_one_group() -> None:
    found = [(TEXTS[one], TEXTS[other], (one * other) % 6) for one in range(12) for other in range(one)]
    with pytest.raises(ValueError, match=r"66 usable rows in 1 groups"):
        new(table(("sentence1", "sentence2", "score"), found))


def test_scores_with_a_decimal_comma_are_refused() -> None:
    found = [(*pair, f"{number % 5},5") for number, pair in enumerate(rows(20))]
    with pytest.raises(ValueError, match=r"20 unreadable.*numbers with a point"):
        new(table(("sentence1", "sentence2", "score"), found, ";"))


def test_two_sentences_without_scores_are_pairs_that_text_matching_learns_from_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = recipe_of(table(("sentence1", "sentence2"), rows(20)))
    assert recipe.adapt.tasks == ("retrieval", "text-matching")
    assert "text-matching is trained, but not measured without scores" in capsys.readouterr().out


def test_a_column_of_values_that_repeat_is_the_label_of_the_only_text() -> None:
    recipe = recipe_of(table(("c1", "c2"), [(text, "ab"[at % 2]) for at, text in enumerate(TEXTS)]))
    assert recipe.curate.sources[0].options == {"text": "c1", "label": "c2"}


def test_a_column_that_could_be_a_label_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    new(table(("question", "answer", "shelf"), [(*pair, "ab"[at % 2]) for at, pair in enumerate(rows(20))]))
    assert "--label 'shelf' would name one" in capsys.readouterr().out


def test_columns_that_are_neither_are_described() -> None:
    with pytest.raises(ValueError, match=r"question \(20 different .*answer \(1 different .*in 20 rows\)"):
        new(table(("question", "answer"), [(query, "Call us.") for query, _ in rows(20)]))


def catalogue(language: str) -> Path:
    file = Path(f"{language}.po")
    entries = "".join(f'msgid "Save the form {at}"\nmsgstr "Enregistrez {at}"\n\n' for at in range(20))
    file.write_text(f'msgid ""\nmsgstr "Language: {language}\\n"\n\n{entries}')
    return file


def test_catalogues_need_a_teacher_that_knows_their_languages() -> None:
    with pytest.raises(ValueError, match=r"en-fr, as the catalogues name them.*teacher that knows fr, by") as refused:
        new(catalogue("fr"))
    assert "--language en" not in str(refused.value)
    with pytest.raises(ValueError, match="each catalogue names its language"):
        new(catalogue("fr"), corrections=Corrections(language="en"))


def test_a_pair_of_languages_is_none_that_the_default_teacher_knows() -> None:
    with pytest.raises(ValueError, match="teacher that knows de"):
        new(table(("question", "answer"), rows(20)), corrections=Corrections(language="en-de"))


@pytest.mark.parametrize("name", ["2024.csv", "null.csv", "質問.csv", "Fragen & Antworten (2) [neu].csv", "FAQ.CSV"])
def test_files_of_any_name_are_read(name: str) -> None:
    assert clean_rows(recipe_of(table(("question", "answer"), rows(20)).rename(name))) == 20


def test_files_of_one_name_are_kept_apart() -> None:
    found = rows(40)
    for folder, part in (("a", found[:20]), ("b", found[20:])):
        Path(folder).mkdir()
        table(("question", "answer"), part).rename(f"{folder}/faq.csv")
    assert clean_rows(recipe_of(Path("a/faq.csv"), Path("b/faq.csv"))) == 40


def test_files_of_a_folder_that_are_not_read_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("manual/guide.md", "manual/.git/config", "manual/picture.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("# A guide\n")
    table(("question", "answer"), rows(20)).rename("manual/faq.csv")
    new(Path("manual"))
    assert "2 other files are left out (.md, .png)" in capsys.readouterr().out


def test_a_build_of_more_minutes_than_wanted_is_announced(capsys: pytest.CaptureFixture[str]) -> None:
    new(table(("question", "answer"), rows(20)), wishes=Wishes(minutes=1.0))
    assert "starts, evaluation and release alone take 2.5" in capsys.readouterr().out
