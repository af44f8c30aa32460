"""Near duplicates, rows given away to evaluation, and MinHash against Jaccard similarities counted by hand."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.corpus.buckets import Buckets
from stages.corpus.cleaning import Limits
from stages.corpus.containment import COMMON, Contained
from stages.corpus.minhash import bands, signatures, similarity
from stages.corpus.overlaps import Overlaps, Similarity
from stages.corpus.quarantine import Quarantine
from stages.corpus.source_ingest import KEPT, Intake, Reasons, SourceToRead, take_in

WORDS = [f"word{number}" for number in range(400)]


def text(start: int, length: int = 40) -> str:
    """Words that no text has which starts `length` further."""
    return " ".join(WORDS[start : start + length])


def test_similarity_is_near_the_jaccard_of_three_word_shingles() -> None:
    one = text(0, 102)  # 100 shingles
    others = [one, text(10, 102), text(50, 102), text(200, 102), one.upper() + "!"]
    jaccards = [1.0, 90 / 110, 50 / 150, 0.0, 1.0]
    found, long = signatures([one, *others], 0.8)
    assert long.all()
    assert similarity(np.repeat(found[:1], 5, axis=0), found[1:]) == pytest.approx(jaccards, abs=0.13)


def test_only_texts_that_can_be_near_another_get_a_signature() -> None:
    _, long = signatures(["", "one two", text(0, 10), text(0, 11), "植物は太陽の光を化学エネルギーに変え"], 0.9)
    assert long.tolist() == [False, False, False, True, True], "nine shingles: one more or less is 9/10"


def test_bands_of_equal_signatures_are_equal_and_of_others_hardly_ever() -> None:
    found, _ = signatures([text(0), text(0), text(60)], 0.8)
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


# Sources

FIELDS = {
    "pairs": ("query", "document"),
    "scored": ("text_a", "text_b"),
    "labelled": ("text",),
    "documents": ("text",),
}
PLACES = [(kind, field) for kind, fields in FIELDS.items() for field in fields]
ROLES = {"query": "query", "text_a": "scored", "text_b": "scored", "document": "document", "text": "document"}


def source(name: str, records: list[dict[str, Any]], kind: str = "pairs", test: float = 0.0) -> SourceToRead:
    origin = {"source": name, "kind": kind, "language": "en", "license": "MIT"}
    return SourceToRead(origin, Limits(dict.fromkeys(FIELDS[kind], (1, 400)), 0.0, test, None, 1), lambda: records)


def pair(number: int, document: str) -> dict[str, Any]:
    return {"entity": f"e{number}", "query": f"query {number}", "document": document}


def row(place: tuple[str, str], number: int, text: str) -> dict[str, Any]:
    """A row with a text in a place; what else it holds no other number has."""
    kind, field = place
    others = {name: f"{name} number {number} and nothing more" for name in FIELDS[kind]}
    return {"entity": f"e{number}", "label": "same", "score": 0.5} | others | {field: text}


def found(
    folder: Path, sources: list[SourceToRead], across: list[list[str]], containment: float | None = None
) -> tuple[list[Any], dict[str, list[str]]]:
    """The report of each test set, and by source the fate of each row."""
    reasons, quarantine = Reasons(), Quarantine(folder / "rejected.parquet")
    intakes: list[Intake] = []
    for one in sources:
        (folder / one.name).mkdir()
        intakes.append(take_in(one, None, folder / one.name, quarantine, reasons))
    overlaps = Overlaps(intakes, across, Similarity(0.9, 0.8, containment), folder / "overlaps")
    report = overlaps.reject_given_away(reasons)
    overlaps.reject_duplicates(reasons)
    quarantine.close()
    return report, {one.origin["source"]: [reasons[fate] for fate in one.fates] for one in intakes}


def test_near_duplicates_within_a_source_leave_the_first(tmp_path: Path) -> None:
    long = text(0, 102)
    documents = [long, text(150, 30), long.replace("word50 ", "another "), f"{long} end", text(30, 102), text(150, 29)]
    _, fates = found(tmp_path, [source("a", [pair(n, one) for n, one in enumerate(documents)])], [])
    near = "document: near duplicate of a row of a"
    # 97/103 and 100/101 are near; 70/130 is not; 27/28 is.
    assert fates["a"] == ["kept", "kept", near, near, "kept", near]


def test_sources_may_repeat_each_other_unless_they_are_grouped(tmp_path: Path) -> None:
    one = [pair(0, text(0)), pair(1, text(50))]
    other = [pair(10, text(0)), pair(11, f"{text(50)} end"), pair(12, text(100))]
    for folder, across, expected in (
        ("apart", [], ["kept"] * 3),
        (
            "grouped",
            [["a", "b"]],
            ["document: duplicate of a row of a", "document: near duplicate of a row of a", "kept"],
        ),
    ):
        (tmp_path / folder).mkdir()
        _, fates = found(tmp_path / folder, [source("a", one), source("b", other)], across)
        assert fates == {"a": ["kept", "kept"], "b": expected}


def test_train_rows_that_a_test_set_repeats_go_and_the_test_set_stays(tmp_path: Path) -> None:
    train = [pair(0, text(0)), pair(1, f"{text(50)} end"), pair(2, text(100)), pair(3, text(150))]
    tested = [pair(10, text(0)), pair(11, text(50)), pair(12, text(200)), pair(3, text(250))]
    report, fates = found(tmp_path, [source("a", train), source("b", tested, test=1.0)], [["a", "b"]])
    assert fates["b"] == ["kept"] * 4
    # Row 3 has the same query in both.
    assert fates["a"] == [
        "document: in the test rows of b",
        "document: nearly in the test rows of b",
        "kept",
        "query: in the test rows of b",
    ]
    assert report == [{"source": "b", "rows": 4, "exact": 2, "near": 1, "inside": None, "entities": 1, "share": 0.75}]


def test_rows_around_a_test_text_go(tmp_path: Path) -> None:
    """Runs of 8 words: 20 words have 13, of which 0.7 are 10."""
    within = [
        f"{text(200, 60)} {text(0, 20).upper()}! {text(300, 60)}",  # all of it, in capitals
        f"{text(200, 30)} {text(3, 17)}",  # its last 17 words: 10 runs
        f"{text(240, 30)} {text(4, 16)}",  # 9 runs
        f"{text(270, 30)} {text(390, 7)}",  # a test text of fewer words than a run is not looked for
        text(120, 40),
    ]
    train = source("a", [pair(number, one) for number, one in enumerate(within)])
    tested = source("b", [pair(10, text(0, 20)), pair(11, text(390, 7)), pair(12, text(60, 20))], test=1.0)
    report, fates = found(tmp_path, [train, tested], [], containment=0.7)
    inside = "document: contains a test row of b"
    assert fates == {"a": [inside, inside, "kept", "kept", "kept"], "b": ["kept"] * 3}
    assert report == [
        {"source": "b", "rows": 3, "exact": 0, "near": 0, "inside": 1, "entities": 0, "share": pytest.approx(1 / 3)}
    ]


def test_halves_of_scored_pairs_hold_test_texts_and_are_held(tmp_path: Path) -> None:
    within = f"{text(200, 60)} {text(0, 20)}"
    train = [source("a", [row(("scored", "text_b"), 0, within)], "scored"), source("b", [pair(1, within)])]
    tested = source("c", [row(("scored", "text_a"), 10, text(0, 20))], "scored", test=1.0)
    report, fates = found(tmp_path, [*train, tested], [], containment=0.7)
    inside = "contains a test row of c"
    assert fates == {"a": [f"text_b: {inside}"], "b": [f"document: {inside}"], "c": ["kept"]}
    assert report[0]["inside"] == 1


def test_phrases_of_many_test_texts_tell_none_of_them(tmp_path: Path) -> None:
    phrase = text(0, 12)
    contained = Contained(0.7)
    contained.add([f"{phrase} {text(20 + number, 3)}" for number in range(COMMON + 1)], np.arange(COMMON + 1))
    contained.add([text(200, 12), "few words"], np.array([90, 91]))
    contained.close()
    places, items = contained.found([f"start {phrase} end", "", f"start {text(200, 12)} end", text(200, 12)])
    assert (places.tolist(), items.tolist()) == ([2, 3], [90, 90])
    nothing = Contained(0.7)
    nothing.close()
    assert nothing.found([phrase])[0].tolist() == []


@pytest.mark.parametrize("tested_at", PLACES, ids="-".join)
@pytest.mark.parametrize("trained_at", PLACES, ids="-".join)
def test_a_test_row_is_given_away_in_any_role(
    tmp_path: Path, trained_at: tuple[str, str], tested_at: tuple[str, str]
) -> None:
    """Equal from 5 words on, or near; five words in common, or a beginning, are neither."""
    five = text(300, 5)
    train = [text(0).upper(), f"{text(50)} end", five, f"{five} end", text(90, 20), text(200)]
    tested = [text(0), text(50), five, text(90)]
    sources = [
        source("a", [row(trained_at, number, one) for number, one in enumerate(train)], trained_at[0]),
        source("b", [row(tested_at, 10 + number, one) for number, one in enumerate(tested)], tested_at[0], test=1.0),
    ]
    report, fates = found(tmp_path, sources, [])
    field, its = trained_at[1], tested_at[1]
    place = "the test rows of b" + ("" if ROLES[field] == ROLES[its] else f" as {its}")
    exact, near = f"{field}: in {place}", f"{field}: nearly in {place}"
    assert fates == {"a": [exact, near, exact, "kept", "kept", "kept"], "b": ["kept"] * 4}
    assert [(one["source"], one["exact"], one["near"], one["share"]) for one in report] == [("b", 2, 1, 0.75)]


@pytest.mark.parametrize("kind", FIELDS)
def test_names_and_phrases_give_nothing_away_in_another_role(tmp_path: Path, kind: str) -> None:
    short = [text(0, 4), "Dog", "如何重置"]
    at, queries = (kind, FIELDS[kind][-1]), ("pairs", "query")
    train = source("a", [row(at, number, one) for number, one in enumerate([*short, "如何重置密码"])], kind)
    tested = [row(queries, 10 + number, one) for number, one in enumerate([*short, "如何重置密码"])]
    _, fates = found(tmp_path, [train, source("b", tested, test=1.0)], [])
    assert fates["a"] == ["kept"] * 3 + [f"{at[1]}: in the test rows of b as query"]


@pytest.mark.parametrize("test", [0.0, 1.0])
def test_rows_of_one_split_repeat_each_other_within_a_role_only(tmp_path: Path, test: float) -> None:
    one, near = text(0), f"{text(0)} end"
    rows = {
        kind: [
            row((kind, field), number, said)
            for number, (said, field) in enumerate(itertools.product((one, near), FIELDS[kind]))
        ]
        for kind in ("pairs", "scored", "labelled")
    }
    sources = [source(kind, [*of_kind, *of_kind[:1]], kind, test) for kind, of_kind in rows.items()]
    report, fates = found(tmp_path, sources, [])
    assert fates == {
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


def test_words_of_scored_pairs_are_given_away_as_pairs_only(tmp_path: Path) -> None:
    def scored(*pairs: str) -> list[dict[str, Any]]:
        return [
            {"entity": f"{names}", "text_a": names[0], "text_b": names[1], "score": 0.1 * number}
            for number, names in enumerate(pairs)
        ]

    train, tested = source("a", scored("xy", "xz", "uv"), "scored"), source("b", scored("yx", "xw"), "scored", test=1.0)
    report, fates = found(tmp_path, [train, tested], [])
    assert fates == {"a": ["text_a: in the test rows of b", "kept", "kept"], "b": ["kept", "kept"]}
    assert report[0]["exact"] == 1


def test_a_large_cluster_costs_no_more_than_its_rows(tmp_path: Path) -> None:
    documents = [f"{text(0, 60)} {WORDS[100 + number % 300]}{number}" for number in range(3000)]
    _, fates = found(tmp_path, [source("a", [pair(n, one) for n, one in enumerate(documents)])], [])
    assert fates["a"].count("kept") == 1
    assert KEPT == 0
