"""Cleaning: reasons, duplicates, splits by entity, samples that stay."""

from typing import Any

import pytest

from stages.corpus.cleaning import Limits, Row, clean, normalise, row_id, sample, split_of

PAIRS = {"source": "wiki", "kind": "pairs", "language": "en", "license": "MIT"}
SCORED = PAIRS | {"source": "people", "kind": "scored"}
WORDS = {"query": (1, 3), "document": (2, 4)}


def limits(words: dict[str, tuple[int, int]] = WORDS, max_rows: int | None = None, **others: Any) -> Limits:
    return Limits(words, **({"dev": 0.0, "test": 0.0, "max_rows": max_rows, "seed": 1} | others))


def pair(query: str, document: str, entity: str = "e") -> Row:
    return {"entity": entity, "query": query, "document": document}


def kept(cleaned: Any) -> list[Row]:
    return [row for rows in cleaned.splits.values() for row in rows]


def test_reasons() -> None:
    records = [
        pair("one", "two words"),
        pair("", "two words more"),
        pair("\x00 \t", "two words more"),
        pair("a b c d", "two words more"),
        pair("two", "word"),
        pair("three", "a b c d e"),
        pair("ONE", "other words here"),
        pair("four", "Two  Words"),
    ]
    cleaned = clean(records, PAIRS, limits())
    assert [row["reason"] for row in cleaned.rejected] == [
        "query: empty",
        "query: empty",
        "query: over 3 words",
        "document: under 2 words",
        "document: over 4 words",
        "query: duplicate",
        "document: duplicate",
    ]
    assert cleaned.num_read == 8
    assert cleaned.rejected[1] == {
        "source": "wiki",
        "kind": "pairs",
        "reason": "query: empty",
        "entity": "e",
        "texts": ["\x00 \t", "two words more"],
    }, "as it was read"
    assert kept(cleaned) == [
        pair("one", "two words") | {"source": "wiki", "language": "en", "license": "MIT"}
        | {"id": row_id("wiki", ["one", "two words"])}
    ]  # fmt: skip


def test_ids_do_not_depend_on_the_order_of_the_limits() -> None:
    rows = [
        kept(clean([pair("one", "two words")], PAIRS, limits(dict(order))))
        for order in (WORDS.items(), [*WORDS.items()][::-1])
    ]
    assert rows[0] == rows[1]


def test_a_rejected_duplicate_does_not_bar_its_other_text() -> None:
    records = [pair("one", "first text"), pair("one", "second text"), pair("two", "second text")]
    assert [row["query"] for row in kept(clean(records, PAIRS, limits()))] == ["one", "two"]


def test_scored_pairs_may_share_texts_but_not_repeat_either_way_round() -> None:
    words = {"text_a": (1, 2), "text_b": (1, 2)}
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
    cleaned = clean(records, SCORED, limits(words))
    assert [(row["text_a"], row["text_b"]) for row in kept(cleaned)] == [("cat", "dog"), ("cat", "cow"), ("hen", "pig")]
    assert [row["reason"] for row in cleaned.rejected] == ["text_a: duplicate", *["score: outside [0, 1]"] * 3]


def test_labelled_texts_are_kept_once() -> None:
    records = [
        {"entity": "e", "text": text, "label": label} for text, label in [("a b", "x"), ("A b", "y"), ("c", "x")]
    ]
    cleaned = clean(records, PAIRS | {"kind": "labelled"}, limits({"text": (1, 2)}))
    assert [row["text"] for row in kept(cleaned)] == ["a b", "c"]
    assert {"label", "id", "license"} <= set(kept(cleaned)[0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  a \n\t b\x07c ", "a b c"),
        ("cafe\u0301", "caf\u00e9"),
        ("a\u00a0b\u2003c", "a b c"),
        ("\x85\x9f", ""),
        ("na\u00efve \U0001f3a9", "na\u00efve \U0001f3a9"),
    ],
)
def test_normalise(text: str, expected: str) -> None:
    assert normalise(text) == expected
    assert normalise(expected) == expected


def test_an_entity_is_in_the_same_split_in_every_source() -> None:
    how = limits({"text": (1, 9)}, dev=0.2, test=0.3)
    rows = {
        source: clean(
            [
                {"entity": f"e{number}", "text": f"{source} {number} {copy}"}
                for number in range(200)
                for copy in range(3)
            ],
            PAIRS | {"source": source},
            how,
        ).splits
        for source in ("one", "two")
    }
    entities = {
        source: {split: {row["entity"] for row in of_split} for split, of_split in splits.items()}
        for source, splits in rows.items()
    }
    assert entities["one"] == entities["two"]
    sizes = {split: len(names) for split, names in entities["one"].items()}
    assert sum(sizes.values()) == 200, "no entity stands in two splits"
    assert sizes["test"] == pytest.approx(60, abs=20)
    assert sizes["dev"] == pytest.approx(40, abs=18)


def test_all_or_nothing_splits_and_seeds() -> None:
    assert {split_of(f"e{n}", limits(dev=0.0, test=1.0)) for n in range(50)} == {"test"}
    assert {split_of(f"e{n}", limits(dev=1.0, test=0.0)) for n in range(50)} == {"dev"}
    one, two = ([split_of(f"e{n}", limits(dev=0.3, test=0.3, seed=seed)) for n in range(50)] for seed in (1, 2))
    assert one != two


def test_a_sample_changes_little_when_rows_are_added() -> None:
    rows = [{"id": row_id("wiki", [str(number)]), "number": number} for number in range(400)]
    chosen = sample(rows, 100, seed=1)
    assert len(chosen) == 100
    assert [row["number"] for row in chosen] == sorted(row["number"] for row in chosen), "in the source's order"
    assert [row["number"] for row in chosen] != list(range(100))
    more = [*({"id": row_id("wiki", [f"new {n}"]), "number": -1} for n in range(40)), *rows]
    again = sample(more, 100, seed=1)
    assert len(again) == 100
    stayed = {row["id"] for row in chosen} & {row["id"] for row in again}
    assert len(stayed) >= 80
    assert {row["id"] for row in again if row["number"] >= 0} <= {row["id"] for row in chosen}
    assert sample(rows, 100, seed=2) != chosen
    assert sample(rows, None, seed=1) == rows
    assert sample(rows, 400, seed=1) == rows


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
