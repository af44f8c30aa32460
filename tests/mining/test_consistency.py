"""The rank of a query's own document for the teacher."""

import numpy as np
import pytest

from stages.mining.consistency import inconsistent_pairs, own_ranks


def pair(name: str, query: str, document: str) -> dict[str, str]:
    return {"id": name, "source": "faq", "query": query, "document": document}


def at(*degrees: float) -> np.ndarray:
    """Unit vectors at angles."""
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def test_a_wrong_document_ranks_behind_the_documents_that_fit_better() -> None:
    pairs = [pair("0", "still", "copper still"), pair("1", "cask", "oak cask"), pair("2", "peat", "lorem ipsum")]
    ranks = own_ranks(pairs, at(0, 50, 20), at(1, 52, 90))
    assert ranks.tolist() == [1, 1, 3]
    (left_out,) = inconsistent_pairs(pairs, ranks, last_rank=2)
    assert (left_out["id"], left_out["rank"]) == ("2", 3)
    assert left_out["reason"] == "the teacher ranks the query's own document 3, expected at most 2"
    assert inconsistent_pairs(pairs, ranks, last_rank=3) == []


def test_copies_and_ties_count_in_favour_of_the_pair() -> None:
    copies = [pair(str(n), f"query {n}", "the same text") for n in range(3)]
    tied = [pair("3", "query 3", "one more text"), pair("4", "query 4", "another text")]
    ranks = own_ranks([*copies, *tied], at(0, 1, 2, 0, 0), at(5, 5, 5, 9, -9))
    assert ranks.tolist() == [1, 1, 1, 2, 2], "three copies above are one text; texts as near are not above"


def test_other_answers_of_the_same_query_are_not_above() -> None:
    pairs = [pair("0", "still", "copper still"), pair("1", "still", "pot still"), pair("2", "cask", "oak cask")]
    assert own_ranks(pairs, at(0, 0, 60), at(1, 10, 60)).tolist() == [1, 1, 1]


def test_blocks_give_the_ranks_of_one_product(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    queries, documents = generator.normal(size=(2, 50, 8)).astype(np.float32)
    pairs = [pair(str(n), f"query {n}", f"document {n}") for n in range(50)]
    whole = own_ranks(pairs, queries, documents)
    monkeypatch.setattr("stages.mining.consistency.CHUNK_SIZE", 150)
    assert own_ranks(pairs, queries, documents).tolist() == whole.tolist()
