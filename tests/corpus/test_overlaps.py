"""Near duplicates, rows that repeat a test row, and MinHash against Jaccard similarities counted by hand."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.corpus.buckets import Buckets, KeyIndex
from stages.corpus.cleaning import SourceToRead
from stages.corpus.containment import MAX_HOLDERS, ContainedTexts
from stages.corpus.minhash import bands, signatures, similarity
from stages.corpus.overlaps import reject_near_duplicates, reject_test_overlaps
from stages.corpus.records import Row
from stages.corpus.rejected_rows import Reasons, RejectedRows
from stages.corpus.source_ingest import ingest
from stages.corpus.text_index import TextIndex
from stages.recipe.curate import EvaluationOverlap, NearDuplicates
from stages.recipe.fields import TEXT_FIELDS, Kind
from tests.corpus import builders
from tests.corpus.builders import source

VOCABULARY = [f"word{number}" for number in range(400)]
PLACES = [(kind, field) for kind, fields in TEXT_FIELDS.items() for field in fields]
ROLES = {"query": "query", "text_a": "scored", "text_b": "scored"} | dict.fromkeys(
    ("document", "text", "translation"), "document"
)


def words(first: int, number: int = 40) -> str:
    """So many words in order; texts whose words do not overlap share none."""
    return " ".join(VOCABULARY[first : first + number])


def test_similarity_is_near_the_jaccard_of_three_word_shingles() -> None:
    text = words(0, 102)  # 100 shingles
    others = [text, words(10, 102), words(50, 102), words(200, 102), text.upper() + "!"]
    jaccards = [1.0, 90 / 110, 50 / 150, 0.0, 1.0]
    found, long = signatures([text, *others], 0.8)
    assert long.all()
    assert similarity(found, np.zeros(5, dtype=int), found, np.arange(1, 6)) == pytest.approx(jaccards, abs=0.13)


def test_only_texts_that_can_be_near_another_get_a_signature() -> None:
    _, long = signatures(["", "one two", words(0, 10), words(0, 11), "植物は太陽の光を化学エネルギーに変え"], 0.9)
    assert long.tolist() == [False, False, False, True, True], "nine shingles: one more or less is 9/10"


def test_bands_of_equal_signatures_are_equal_and_of_others_hardly_ever() -> None:
    found, _ = signatures([words(0), words(0), words(60)], 0.8)
    keys = bands(found, "document")
    assert (keys[0] == keys[1]).all()
    assert not (keys[0] == keys[2]).any()
    assert len(np.unique(keys[0])) == len(keys[0]), "a band is no other band"
    assert not (bands(found, "query")[0] == keys[0]).any()


def test_buckets_give_what_is_shared_whatever_the_order(tmp_path: Path) -> None:
    keys = np.random.default_rng(0).integers(0, 2**64, 3000, dtype=np.uint64)
    buckets = Buckets(tmp_path / "b")
    buckets.add(keys, np.arange(3000))
    buckets.add(keys[[7, 9, 7]], np.array([5000, 5001, 5002]))
    shared = np.concatenate(list(buckets.shared()))
    assert sorted(shared["item"].tolist()) == [7, 9, 5000, 5001, 5002]
    assert [len(part) for part in buckets.shared() if len(part)] in ([3, 2], [2, 3], [5])


def test_an_index_finds_every_value_of_a_key() -> None:
    index = KeyIndex(np.array([5, 3, 5, 9], dtype=np.uint64), np.array([50, 30, 51, 90]))
    positions, values = index.find(np.array([4, 5, 3, 5], dtype=np.uint64))
    assert positions.tolist() == [1, 1, 2, 3, 3] and values.tolist() == [50, 51, 30, 50, 51]


# Sources


def train(name: str, records: list[Row], kind: Kind = "pairs") -> SourceToRead:
    """A source whose rows are all trained on."""
    return source(records, kind, name=name)


def held_out(name: str, records: list[Row], kind: Kind = "pairs") -> SourceToRead:
    """A source whose rows are all tested on."""
    return source(records, kind, name=name, splits={"dev": 0.0, "test": 1.0})


def pair(number: int, document: str) -> Row:
    return builders.pair(f"query {number}", document, f"e{number}")


def row(place: tuple[Kind, str], number: int, text: str) -> Row:
    """A row with a text in a field of a kind; its other texts are those of no other number."""
    kind, field = place
    others = {name: f"{name} number {number} and nothing more" for name in TEXT_FIELDS[kind]}
    return {"entity": f"e{number}", "label": "same", "score": 0.5} | others | {field: text}


def overlaps(
    folder: Path, sources: list[SourceToRead], across: list[list[str]] | None = None, containment: float | None = None
) -> tuple[list[Any], dict[str, list[str]]]:
    """The report of each test set, and by source `kept` or the reason for each row."""
    reasons, rejected, ingested = Reasons(), RejectedRows(folder / "rejected.parquet"), []
    for read in sources:
        ingested.append(ingest(read, None, folder / read.section.name, rejected, reasons))
    rejected.close()
    index = TextIndex(ingested, 0.8, folder / "texts")
    limits = EvaluationOverlap(jaccard=0.8, containment=containment, max_share=1.0)
    report = reject_test_overlaps(index, limits, reasons)
    duplicates = NearDuplicates.model_validate({"jaccard": 0.9, "across": across or []})
    reject_near_duplicates(index, duplicates, reasons)
    return report, {one.section.name: [reasons[number] for number in one.row_status] for one in ingested}


def test_near_duplicates_within_a_source_leave_the_first(tmp_path: Path) -> None:
    long = words(0, 102)  # 100 shingles
    documents = [
        long,
        words(150, 30),
        long.replace("word50 ", "another "),
        f"{long} end",
        words(30, 102),
        words(150, 29),
    ]
    _, found = overlaps(tmp_path, [train("a", [pair(n, one) for n, one in enumerate(documents)])])
    near = "document: near duplicate of a row of a"
    # Shingles in common, of all: 97 of 103 and 100 of 101 are near, 70 of 130 is not, 27 of 28 is.
    assert found["a"] == ["kept", "kept", near, near, "kept", near]


def test_sources_may_repeat_each_other_unless_they_are_grouped(tmp_path: Path) -> None:
    one = [pair(0, words(0)), pair(1, words(50))]
    other = [pair(10, words(0)), pair(11, f"{words(50)} end"), pair(12, words(100))]
    for folder, across, expected in (
        ("apart", [], ["kept"] * 3),
        (
            "grouped",
            [["a", "b"]],
            ["document: duplicate of a row of a", "document: near duplicate of a row of a", "kept"],
        ),
    ):
        (tmp_path / folder).mkdir()
        _, found = overlaps(tmp_path / folder, [train("a", one), train("b", other)], across)
        assert found == {"a": ["kept", "kept"], "b": expected}


def test_train_rows_that_a_test_set_repeats_go_and_the_test_set_stays(tmp_path: Path) -> None:
    rows = [pair(0, words(0)), pair(1, f"{words(50)} end"), pair(2, words(100)), pair(3, words(150))]
    tests = [pair(10, words(0)), pair(11, words(50)), pair(12, words(200)), pair(3, words(250))]
    report, found = overlaps(tmp_path, [train("a", rows), held_out("b", tests)], [["a", "b"]])
    assert found["b"] == ["kept"] * 4
    # Row 3 has the same query in both.
    assert found["a"] == [
        "document: in the test rows of b",
        "document: nearly in the test rows of b",
        "kept",
        "query: in the test rows of b",
    ]
    assert report == [{"source": "b", "rows": 4, "exact": 2, "near": 1, "inside": None, "entities": 1, "share": 0.75}]


@pytest.mark.parametrize(
    "written",
    [
        "\ufeffred lamp",
        "red lamp\u200b",
        "\u200ered lamp\u200f",
        "re\u00add la\u2060mp",
        "red\u3000lamp",
        "\uff52ed lamp",
    ],
)
def test_a_short_test_text_in_other_bytes_leaves_train(tmp_path: Path, written: str) -> None:
    trained, tested = pair(0, "the first") | {"query": written}, pair(1, "the second") | {"query": "Red lamp"}
    report, found = overlaps(tmp_path, [train("a", [trained]), held_out("b", [tested])])
    assert found == {"a": ["query: in the test rows of b"], "b": ["kept"]}
    assert report[0]["exact"] == 1


def test_rows_around_a_test_text_go(tmp_path: Path) -> None:
    """Runs of 8 words: 20 words have 13, of which 0.7 are 10."""
    within = [
        f"{words(200, 60)} {words(0, 20).upper()}! {words(300, 60)}",  # all of it, in capitals
        f"{words(200, 30)} {words(3, 17)}",  # its last 17 words: 10 runs
        f"{words(240, 30)} {words(4, 16)}",  # 9 runs
        f"{words(270, 30)} {words(390, 7)}",  # a test text of fewer words than a run is not looked for
        words(120, 40),
    ]
    rows = [pair(number, one) for number, one in enumerate(within)]
    tests = [pair(10, words(0, 20)), pair(11, words(390, 7)), pair(12, words(60, 20))]
    report, found = overlaps(tmp_path, [train("a", rows), held_out("b", tests)], containment=0.7)
    inside = "document: contains a test row of b"
    assert found == {"a": [inside, inside, "kept", "kept", "kept"], "b": ["kept"] * 3}
    assert report == [
        {"source": "b", "rows": 3, "exact": 0, "near": 0, "inside": 1, "entities": 0, "share": pytest.approx(1 / 3)}
    ]


def test_halves_of_scored_pairs_hold_test_texts_and_are_held(tmp_path: Path) -> None:
    within = f"{words(200, 60)} {words(0, 20)}"
    trained = [train("a", [row(("scored", "text_b"), 0, within)], "scored"), train("b", [pair(1, within)])]
    tests = held_out("c", [row(("scored", "text_a"), 10, words(0, 20))], "scored")
    report, found = overlaps(tmp_path, [*trained, tests], containment=0.7)
    inside = "contains a test row of c"
    assert found == {"a": [f"text_b: {inside}"], "b": [f"document: {inside}"], "c": ["kept"]}
    assert report[0]["inside"] == 1


def test_phrases_of_many_test_texts_identify_none_of_them(tmp_path: Path) -> None:
    phrase = words(0, 12)
    common = [f"{phrase} {words(20 + number, 3)}" for number in range(MAX_HOLDERS + 1)]
    tests = [(common, np.arange(MAX_HOLDERS + 1)), ([words(200, 12), "few words"], np.array([90, 91]))]
    contained = ContainedTexts(0.7, tests)
    positions, numbers = contained.find([f"start {phrase} end", "", f"start {words(200, 12)} end", words(200, 12)])
    assert (positions.tolist(), numbers.tolist()) == ([2, 3], [90, 90])
    assert ContainedTexts(0.7, []).find([phrase])[0].tolist() == []


@pytest.mark.parametrize("tested_at", PLACES, ids="-".join)
@pytest.mark.parametrize("trained_at", PLACES, ids="-".join)
def test_a_test_row_is_found_in_any_role(
    tmp_path: Path, trained_at: tuple[Kind, str], tested_at: tuple[Kind, str]
) -> None:
    """Equal from 5 words on, or near; five words in common, or a beginning, are neither."""
    five = words(300, 5)
    trained = [words(0).upper(), f"{words(50)} end", five, f"{five} end", words(90, 20), words(200)]
    tests = [words(0), words(50), five, words(90)]
    sources = [
        train("a", [row(trained_at, number, one) for number, one in enumerate(trained)], trained_at[0]),
        held_out("b", [row(tested_at, 10 + number, one) for number, one in enumerate(tests)], tested_at[0]),
    ]
    report, found = overlaps(tmp_path, sources)
    field, its = trained_at[1], tested_at[1]
    place = "the test rows of b" + ("" if ROLES[field] == ROLES[its] else f" as {its}")
    exact, near = f"{field}: in {place}", f"{field}: nearly in {place}"
    assert found == {"a": [exact, near, exact, "kept", "kept", "kept"], "b": ["kept"] * 4}
    assert [(one["source"], one["exact"], one["near"], one["share"]) for one in report] == [("b", 2, 1, 0.75)]


@pytest.mark.parametrize("kind", TEXT_FIELDS)
def test_names_and_phrases_are_not_looked_for_in_another_role(tmp_path: Path, kind: Kind) -> None:
    short = [words(0, 4), "Dog", "如何重置"]
    at, queries = (kind, TEXT_FIELDS[kind][-1]), ("pairs", "query")
    trained = train("a", [row(at, number, one) for number, one in enumerate([*short, "如何重置密码"])], kind)
    tests = [row(queries, 10 + number, one) for number, one in enumerate([*short, "如何重置密码"])]
    _, found = overlaps(tmp_path, [trained, held_out("b", tests)])
    assert found["a"] == ["kept"] * 3 + [f"{at[1]}: in the test rows of b as query"]


@pytest.mark.parametrize("split", [train, held_out])
def test_rows_of_one_split_repeat_each_other_within_a_role_only(tmp_path: Path, split: Any) -> None:
    one, near = words(0), f"{words(0)} end"
    rows = {
        kind: [
            row((kind, field), number, said)
            for number, (said, field) in enumerate(itertools.product((one, near), TEXT_FIELDS[kind]))
        ]
        for kind in ("pairs", "scored", "labelled")
    }
    sources = [split(kind, [*of_kind, *of_kind[:1]], kind) for kind, of_kind in rows.items()]
    report, found = overlaps(tmp_path, sources)
    assert found == {
        "pairs": [
            *["kept"] * 2,
            "query: near duplicate of a row of pairs",
            "document: near duplicate of a row of pairs",
            "query: duplicate",
        ],
        "scored": [*["kept"] * 4, "text_a: duplicate"],
        "labelled": ["kept", "text: near duplicate of a row of labelled", "text: duplicate"],
    }
    assert all(one["share"] == 0.0 for one in report)


def test_words_of_scored_pairs_are_found_as_pairs_only(tmp_path: Path) -> None:
    def scored(*pairs: str) -> list[dict[str, Any]]:
        return [
            {"entity": f"{names}", "text_a": names[0], "text_b": names[1], "score": 0.1 * number}
            for number, names in enumerate(pairs)
        ]

    trained, tests = train("a", scored("xy", "xz", "uv"), "scored"), held_out("b", scored("yx", "xw"), "scored")
    report, found = overlaps(tmp_path, [trained, tests])
    assert found == {"a": ["text_a: in the test rows of b", "kept", "kept"], "b": ["kept", "kept"]}
    assert report[0]["exact"] == 1


def test_a_large_cluster_costs_no_more_than_its_rows(tmp_path: Path) -> None:
    documents = [f"{words(0, 60)} {VOCABULARY[100 + number % 300]}{number}" for number in range(3000)]
    _, found = overlaps(tmp_path, [train("a", [pair(n, one) for n, one in enumerate(documents)])])
    assert found["a"].count("kept") == 1
