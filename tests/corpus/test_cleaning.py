"""Cleaning and ingest: reasons, languages, repeats, splits by entity, and samples that hardly change."""

from pathlib import Path

import pytest

from stages.corpus.cleaning import clean, row_id, split_of
from stages.corpus.languages import LanguageCheck, is_language, text_languages
from stages.corpus.records import Unreadable
from stages.corpus.tables import SPLITS
from stages.recipe.curate import LanguageId
from tests.corpus.builders import Ingested, pair, reasons, source

SHORT = {"query": (1, 3), "document": (2, 4)}
SURE = LanguageId(min_words=8, min_confidence=0.8)


def test_reasons(tmp_path: Path) -> None:
    records = [
        pair("one", "two words"),
        pair("", "two words more"),
        pair("\x00 \t", "two words more"),
        pair("a b c d", "two words more"),
        pair("two", "word"),
        pair("three", "a b c d e"),
        pair("ONE", "other words here"),
        pair("four", "Two  Words"),
        pair("five \udcff", "two words, too"),
        Unreadable("not JSON", "{broken \udcff"),
    ]
    ingested = Ingested(source(records, words=SHORT), tmp_path)
    rejected = ingested.rejected_by_cleaning
    assert reasons(rejected) == [
        "query: empty",
        "query: empty",
        "query: over 3 words",
        "document: under 2 words",
        "document: over 4 words",
        "query: not UTF-8",
        "not JSON",
    ]
    assert ingested.rejected_later == ["query: duplicate", "document: duplicate"]
    assert ingested.ingest.num_read == 10
    as_read = {"source": "wiki", "kind": "pairs", "reason": "query: empty", "entity": "e"}
    assert rejected[1] == as_read | {"texts": ["\x00 \t", "two words more"]}
    assert [row["texts"][0] for row in rejected[-2:]] == ["five \\udcff", "{broken \\udcff"]
    raw = [row["raw"] for row in ingested.clean]
    assert raw == [None, None, ["four", "Two  Words"]], "the texts as read, where cleaning changed them"
    assert ingested.kept == [
        pair("one", "two words") | {"source": "wiki", "language": "en", "license": "MIT"}
        | {"id": row_id("wiki", ["one", "two words"]), "identified": "", "raw": None}
        | {"negatives": [], "origin": "given"}
    ]  # fmt: skip


def test_ids_do_not_depend_on_the_order_of_the_limits(tmp_path: Path) -> None:
    rows = [
        Ingested(source([pair("one", "two words")], words=dict(order)), tmp_path / str(number)).kept
        for number, order in enumerate((SHORT.items(), [*SHORT.items()][::-1]))
    ]
    assert rows[0] == rows[1]


def test_a_rejected_duplicate_does_not_bar_its_other_text(tmp_path: Path) -> None:
    records = [pair("one", "first text"), pair("one", "second text"), pair("two", "second text")]
    assert [row["query"] for row in Ingested(source(records), tmp_path).kept] == ["one", "two"]


def test_a_query_may_be_the_document_of_another_row(tmp_path: Path) -> None:
    records = [pair("one two", "first text"), pair("first text", "one two")]
    assert len(Ingested(source(records), tmp_path).kept) == 2


def test_scored_pairs_may_share_texts_but_not_repeat_either_way_round(tmp_path: Path) -> None:
    records = [
        {"entity": "e", "text_a": a, "text_b": b, "score": score}
        for a, b, score in [
            ("cat", "dog", 0.5),
            ("cat", "cow", 0.2),
            ("dog", "Cat", 0.9),
            ("cow", "hen", 1.1),
            ("cow", "pig", -0.1),
            ("hen", "pig", 1.0),
            ("hen", "cow", float("nan")),
        ]
    ]
    ingested = Ingested(source(records, "scored"), tmp_path)
    assert [(row["text_a"], row["text_b"]) for row in ingested.kept] == [("cat", "dog"), ("cat", "cow"), ("hen", "pig")]
    assert reasons(ingested.rejected_by_cleaning) == ["score: outside [0, 1]"] * 2 + ["score: empty"]
    assert ingested.rejected_later == ["text_a: duplicate"]


def test_labelled_texts_are_kept_once_and_labels_of_one_row_are_not_kept(tmp_path: Path) -> None:
    texts = [("a b", "x"), ("A b", "y"), ("c", "x"), ("d", "y"), ("e", " ")]
    records = [{"entity": "e", "text": text, "label": label} for text, label in texts]
    ingested = Ingested(source(records, "labelled"), tmp_path)
    assert [row["text"] for row in ingested.kept] == ["a b", "c"]
    assert ingested.rejected_later == ["text: duplicate", "label: of one row only"]
    assert reasons(ingested.rejected_by_cleaning) == ["label: empty"]
    assert {"label", "id", "license"} <= set(ingested.kept[0])


def test_labels_entities_and_languages_are_normalised_as_texts_are(tmp_path: Path) -> None:
    written = [("care", "e1"), ("care ", "e1\u200b"), ("\ufeffcare", " e1"), ("\u200b", "e2"), ("Care", "e2")]
    records = [
        {"entity": entity, "text": f"text {number}", "label": label, "language": "en\u00a0"}
        for number, (label, entity) in enumerate([*written, ("Care", "e2")])
    ]
    ingested = Ingested(source(records, "labelled"), tmp_path)
    assert [(row["label"], row["entity"]) for row in ingested.kept] == [("care", "e1")] * 3 + [("Care", "e2")] * 2
    assert reasons(ingested.rejected_by_cleaning) == ["label: empty"]


def test_what_repeats_is_found_over_many_batches(tmp_path: Path) -> None:
    records = [{"entity": str(n), "text": f"text {n % 3000}"} for n in range(9000)]
    ingested = Ingested(source(records, "documents"), tmp_path)
    assert [row["entity"] for row in ingested.kept] == [str(n) for n in range(3000)]
    assert len(ingested.rejected_later) == 6000


@pytest.mark.parametrize(
    ("language", "text", "reason"),
    [
        ("en", "Les plantes transforment la lumière du soleil en énergie chimique.", "text: in fr, not en"),
        ("en", "Plants turn the light of the sun into chemical energy.", None),
        ("en", "Les plantes vertes.", None),
        ("und", "Les plantes transforment la lumière du soleil en énergie chimique.", None),
        ("ja", "植物は太陽の光を化学エネルギーに変えて、成長のために使うことができます。", None),
        ("en", "النباتات تحول ضوء الشمس إلى طاقة كيميائية تستخدمها للنمو", "text: in ar, not en"),
    ],
)
def test_texts_surely_in_another_language_are_rejected(language: str, text: str, reason: str | None) -> None:
    read = source([{"entity": "e", "text": text}], "documents", language=language)
    (((_, found),),) = clean(read, LanguageCheck(SURE))
    assert found == reason


def test_declared_languages_are_named_in_several_ways() -> None:
    assert (
        is_language("no", "nb") and is_language("", "en") and is_language("fr", "mul") and not is_language("de", "en")
    )
    assert text_languages("pt-BR") == ["pt"] and text_languages("zh-Hant-TW") == ["zh"]
    assert text_languages("en-de") == ["en", "de"] and text_languages("pt-BR-zh-Hans") == ["pt", "zh"]
    with pytest.raises(ValueError, match="such as en, pt-BR or en-de, got 'English'"):
        text_languages("English")


def test_an_entity_is_in_the_same_split_in_every_source(tmp_path: Path) -> None:
    entities = {}
    for name in ("one", "two"):
        texts = [(f"e{number}", f"{name} {number} {copy}") for number in range(200) for copy in range(3)]
        records = [{"entity": entity, "text": text} for entity, text in texts]
        read = source(records, "documents", name=name, splits={"dev": 0.2, "test": 0.3})
        ingested = Ingested(read, tmp_path / name)
        splits = [SPLITS[number] for number in ingested.ingest.splits]
        entities[name] = {(row["entity"], split) for row, split in zip(ingested.clean, splits, strict=True)}
    assert entities["one"] == entities["two"]
    assert len(entities["one"]) == 200, "no entity occurs in two splits"
    sizes = {split: sum(1 for _, other in entities["one"] if other == split) for split in SPLITS}
    assert sizes["test"] == pytest.approx(60, abs=20)
    assert sizes["dev"] == pytest.approx(40, abs=18)


def test_a_sample_keeps_the_order_and_most_of_its_choice_when_rows_are_added(tmp_path: Path) -> None:
    def chosen(number: int) -> list[str]:
        records = [{"entity": str(n), "text": f"text {n}"} for n in range(number)]
        kept = Ingested(source(records, "documents", max_rows=50), tmp_path / str(number)).kept
        return [row["entity"] for row in kept]

    first, again = chosen(100), chosen(110)
    assert len(first) == len(again) == 50
    assert first == sorted(first, key=int)
    assert len({*first} & {*again}) >= 40


def test_all_or_nothing_splits_and_seeds() -> None:
    def splits(dev: float, test: float, seed: int = 1) -> list[str]:
        read = source([], splits={"dev": dev, "test": test}, seed=seed)
        return [split_of(f"e{n}", read) for n in range(50)]

    assert set(splits(0.0, 1.0)) == {"test"}
    assert set(splits(1.0, 0.0)) == {"dev"}
    assert splits(0.3, 0.3) != splits(0.3, 0.3, seed=2)


def test_ids_are_addresses_of_content_within_a_source() -> None:
    assert row_id("wiki", ["a", "b"]) == row_id("wiki", ["a", "b"])
    ids = {
        row_id("wiki", ["a", "b"]),
        row_id("docs", ["a", "b"]),
        row_id("wiki", ["ab", ""]),
        row_id("wiki", ["b", "a"]),
    }
    assert len(ids) == 4
    assert row_id("wiki", ["a"]).startswith("wiki/")
