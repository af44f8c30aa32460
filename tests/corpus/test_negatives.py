"""Explicit negatives of pairs: cleaned like other texts, and never the text of a test row."""

from pathlib import Path

from stages.corpus.negatives import ExplicitNegatives
from stages.corpus.tables import SCHEMAS, given_negatives
from tests.corpus.builders import Ingested, pair, source

OPTIONS = {"query": "query", "document": "document", "negatives": "neg"}
TESTED = {"dev": 0.0, "test": 1.0}


def test_a_test_text_is_no_negative_and_its_pair_stays(tmp_path: Path) -> None:
    record = pair(
        "what is a hat", "a cover", "hat", negatives=[" SECRET  words ", "", "a\ttree", "a tree", "a bad \udcff"]
    )
    trained = Ingested(source([record], name="own", options=OPTIONS), tmp_path / "own").ingest
    held = Ingested(
        source([pair("what is hidden", "secret words")], name="held", splits=TESTED), tmp_path / "held"
    ).ingest
    _, rows = next(trained.batches())
    assert rows["negatives"].to_pylist() == [["SECRET words", "a tree"]]
    explicit = ExplicitNegatives([trained, held])
    left = explicit.without_tested("own", rows)
    assert left["negatives"].to_pylist() == [["a tree"]]
    assert left.select(SCHEMAS["pairs"].names).schema.equals(SCHEMAS["pairs"])
    assert explicit.counts == {"own": {"kept": 1, "in_test": 1}}


def test_a_text_of_the_pair_itself_is_none_of_its_negatives(tmp_path: Path) -> None:
    record = pair("what is a hat", "a cover", "hat", negatives=["a cover", "what is a hat", "a tree"])
    _, rows = next(Ingested(source([record], options=OPTIONS), tmp_path).ingest.batches())
    assert given_negatives(rows) == [["a tree"]]


def test_pairs_without_explicit_negatives_have_an_empty_list(tmp_path: Path) -> None:
    ingested = Ingested(source([pair("what is a hat", "a cover")]), tmp_path).ingest
    _, rows = next(ingested.batches())
    explicit = ExplicitNegatives([ingested])
    assert explicit.without_tested("wiki", rows)["negatives"].to_pylist() == [[]]
    assert explicit.counts == {}
