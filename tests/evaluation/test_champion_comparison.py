"""A release beside the champion: on stored rows where those are the same, scored again elsewhere; and its index."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stages.corpus.tables import SCHEMAS, write_table
from stages.evaluation import champion_comparison as champion
from stages.evaluation.evidence import Evidence, digests_of_tests, load_evidence, units_of_tests
from stages.evaluation.gates import Figure, judge
from stages.evaluation.tasks import ranking_score
from stages.losses.contrastive import info_nce
from stages.metrics.bootstrap import Draws, ratio
from stages.metrics.retrieval import rank
from stages.metrics.row_outcomes import Mean, Partition, RankCorrelation, RowOutcomes, figure
from stages.recipe.promote import Gate

ROWS = 40


@pytest.fixture
def vectors() -> np.ndarray:
    drawn = np.random.default_rng(3).normal(size=(ROWS, 8)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def evidence(vectors: np.ndarray, scores: np.ndarray, digest: str = "a") -> Evidence:
    half = np.arange(ROWS) % 2
    outcomes: dict[str, dict[str, dict[str, RowOutcomes]]] = {
        "retrieval": {"retrieval": {"wikipedia": Mean(scores)}, "bm25": {"wikipedia": Mean(1 - scores)}},
        "text-matching": {"text-matching": {"simlex": RankCorrelation(scores + half, half * 1.0)}},
        "clustering": {"clustering": {"topics": Partition(np.stack([half, 1 - half]), half)}},
    }
    tests = {"retrieval": {"wikipedia": digest}, "text-matching": {"simlex": "s"}, "clustering": {"topics": "t"}}
    return Evidence(outcomes, {"wikipedia": {"query": vectors, "document": vectors}}, tests)


def never(sources: Mapping[str, Sequence[str]]) -> Evidence:
    raise AssertionError(f"nothing is to be scored again, got {sources}")


def test_evidence_is_read_back_as_it_was(tmp_path: Path, vectors: np.ndarray) -> None:
    written = evidence(vectors, np.linspace(0, 1, ROWS))
    written.save(tmp_path)
    read = load_evidence(tmp_path)
    assert read.tests == written.tests
    for task, by_model in written.outcomes.items():
        for model, by_source in by_model.items():
            for source, outcomes in by_source.items():
                found = read.outcomes[task][model][source]
                assert type(found) is type(outcomes)
                assert figure(found) == figure(outcomes)
    np.testing.assert_allclose(read.vectors["wikipedia"]["query"], vectors, atol=1e-3)


def test_a_test_set_is_known_by_its_rows_and_their_order(tmp_path: Path) -> None:
    origin = {"entity": "e", "source": "s", "language": "en", "license": "MIT"}
    rows = [{"id": str(at), "text": f"text {at}", "label": "a", **origin} for at in range(3)]

    def digests(test: list[dict[str, str]], seed: int = 1) -> dict[str, str]:
        for split, written in (("dev", rows), ("test", test)):
            write_table(tmp_path / f"labelled/{split}.parquet", written, SCHEMAS["labelled"])
        found = digests_of_tests(tmp_path, {"clustering": ["s"], "classification": ["s"]}, seed)
        return {task: by_source["s"] for task, by_source in found.items()}

    first = digests(rows)
    assert digests([row | {"id": f"new {row['id']}"} for row in rows]) == first
    for other in (rows[::-1], rows[:2], [*rows[:2], rows[2] | {"label": "b"}]):
        assert not set(digests(other).values()) & set(first.values())
    again = digests(rows, seed=2)
    assert again["classification"] == first["classification"] and again["clustering"] != first["clustering"]


def test_the_champion_again_is_neither_better_nor_worse(vectors: np.ndarray) -> None:
    ours = evidence(vectors, np.linspace(0, 1, ROWS))
    same = champion.champion_on_our_rows(ours, ours, never)
    figures = champion.compare_with_champion(ours, same, seed=1, num_resamples=200)
    names = ["retrieval_over_champion", "text_matching_over_champion", "clustering_over_champion"]
    assert list(figures) == [*names, "index_compatibility"] == champion.figure_names(list(ours.tests))
    for name in names:
        assert (figures[name].value, figures[name].low, figures[name].high, figures[name].p) == (0, 0, 0, 1)
    assert figures["index_compatibility"].value == 1.0
    limits = {name: Gate(low=-0.01) for name in names}
    assert {one.word for one in judge(figures, limits)} == {"passed"}


def test_worse_rows_are_refused_and_better_ones_pass(vectors: np.ndarray) -> None:
    good, bad = np.linspace(0.5, 1, ROWS), np.linspace(0.3, 0.8, ROWS)
    limits = {"retrieval_over_champion": Gate(low=-0.01)}

    def word(ours: np.ndarray, theirs: np.ndarray) -> str:
        mine, other = evidence(vectors, ours), evidence(vectors, theirs)
        figures = champion.compare_with_champion(mine, champion.champion_on_our_rows(mine, other, never), 1, 200)
        return judge(figures, limits)[0].word

    assert word(bad, good) == "refused"
    assert word(good, bad) == "passed"
    # As good on the mean, but so unlike on rows that it may be worse by more than the margin.
    assert word(good[::-1], good) == "refused"


def test_only_changed_rows_are_scored_again(vectors: np.ndarray) -> None:
    ours, stored = evidence(vectors, np.ones(ROWS), "new"), evidence(vectors, np.zeros(ROWS), "old")
    asked = []

    def again(sources: Mapping[str, Sequence[str]]) -> Evidence:
        asked.append(sources)
        outcomes = {"retrieval": {"retrieval": {"wikipedia": Mean(np.full(ROWS, 0.5))}}}
        return Evidence(outcomes, {"wikipedia": {"query": np.roll(vectors, 1, axis=0), "document": vectors}}, {})

    theirs = champion.champion_on_our_rows(ours, stored, again)
    assert asked == [{"retrieval": ["wikipedia"]}]
    figures = champion.compare_with_champion(ours, theirs, 1, 200)
    assert figures["retrieval_over_champion"].value == 0.5
    assert figures["index_compatibility"].value > 2  # the champion's own queries are wrong, ours are not
    # A champion from before evidence was kept is scored again whole.
    with pytest.raises(AssertionError, match="text-matching"):
        champion.champion_on_our_rows(ours, None, never)


def test_whether_a_re_index_is_due(vectors: np.ndarray) -> None:
    theirs, limits = evidence(vectors, np.ones(ROWS)), {"index_compatibility": Gate(min=0.95, otherwise="warn")}

    def verdict(queries: np.ndarray, limits: dict[str, Gate] = limits) -> str:
        ours = evidence(vectors, np.ones(ROWS))
        ours = Evidence(ours.outcomes, {"wikipedia": {"query": queries, "document": queries}}, ours.tests)
        return champion.index_statement(judge(champion.compare_with_champion(ours, theirs, 1, 200), limits))

    assert verdict(vectors).startswith("No re-index is due")
    turned = np.roll(vectors, 1, axis=1)  # as good among themselves, in other axes
    assert verdict(turned).startswith("A re-index is due: new queries do not work")
    assert "dimensions differ, 4 and 8" in verdict(vectors[:, :4])
    assert "sets no limit" in verdict(vectors, {})
    none = champion.not_comparable(["retrieval"], "there is no champion", None)
    assert champion.index_statement(judge(none, limits)) == "There is no champion, so there is no index to keep."


def trained(documents_of: np.ndarray, seed: int = 0) -> np.ndarray:
    """nDCG@10 of each of 40 queries after a table of token vectors was trained on pairs: query i, document of i.

    A query and its document share no token; that they belong together is in the pairs alone.
    """
    torch.manual_seed(seed)
    queries, documents = torch.nn.Embedding(ROWS, 16), torch.nn.Embedding(ROWS, 16)
    optimizer = torch.optim.Adam([*queries.parameters(), *documents.parameters()], lr=0.05)
    for _ in range(60):
        left, right = (torch.nn.functional.normalize(one.weight, dim=1) for one in (queries, documents))
        loss = info_nce(left, right[torch.as_tensor(documents_of)], None, temperature=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    ranked, _ = rank(left.detach().numpy(), right.detach().numpy(), 100)
    outcomes = ranking_score(ranked).outcomes
    assert isinstance(outcomes, Mean)
    return outcomes.scores


def test_a_model_trained_on_shuffled_labels_is_refused(vectors: np.ndarray) -> None:
    right = trained(np.arange(ROWS))
    shuffled = trained(np.random.default_rng(0).permutation(ROWS))
    teacher = Draws(1.0, np.ones(200))
    limits = {"retrieval_retention": Gate(min=0.9), "retrieval_over_champion": Gate(low=-0.02)}
    theirs = evidence(vectors, right)

    def words(scores: np.ndarray) -> list[str]:
        ours = evidence(vectors, scores)
        kept = ratio(Draws(float(scores.mean()), np.full(200, scores.mean())), teacher)
        figures = champion.compare_with_champion(ours, champion.champion_on_our_rows(ours, theirs, never), 1, 200)
        return [one.word for one in judge(figures | {"retrieval_retention": Figure(kept.figure)}, limits)]

    assert words(right) == ["passed", "passed"]
    assert words(shuffled) == ["refused", "refused"]


def test_rows_are_drawn_by_entity_and_pairs_of_the_same_texts_by_both(tmp_path: Path) -> None:
    def units(kind: str, task: str, *rows: dict[str, Any]) -> list[Any]:
        common = {"source": "s", "language": "en", "license": "MIT"}
        write_table(tmp_path / kind / "test.parquet", [common | row for row in rows], SCHEMAS[kind])
        found: list[Any] = units_of_tests(tmp_path, {task: ["s"]})[task]["s"].tolist()
        return found

    def pair(number: int, entity: str) -> dict[str, Any]:
        return {"id": str(number), "entity": entity, "query": f"q{number}", "document": f"d{number}"}

    def scored(left: str, right: str, entity: str) -> dict[str, Any]:
        return {"id": left + right, "entity": entity, "text_a": left, "text_b": right, "score": 0.5}

    assert units("pairs", "unseen", pair(1, "b"), pair(2, "a"), pair(3, "b")) == [1, 0, 1]
    assert units("pairs", "unseen", pair(1, "a"), pair(2, "a")) == [0, 1], "nothing tells them apart"
    every_pair = [scored("x", "y", "news"), scored("x", "z", "news"), scored("y", "z", "news")]
    assert units("scored", "text-matching", *every_pair) == [[0, 1], [0, 2], [1, 2]]
    assert units("scored", "text-matching", scored("w", "x", "a"), scored("y", "z", "b")) == [0, 1]
    assert units("scored", "text-matching", scored("w", "x", "a"), scored("y", "z", "a")) == [0, 1]


def test_a_task_that_the_champion_was_not_trained_for_is_not_judged(vectors: np.ndarray) -> None:
    ours, both = evidence(vectors, np.ones(ROWS), "new"), evidence(vectors, np.ones(ROWS))
    only = "clustering"
    stored = Evidence({only: both.outcomes[only]}, {}, {only: both.tests[only]})
    theirs = champion.champion_on_our_rows(ours, stored, lambda sources: Evidence({}, {}, {}))
    figures = champion.compare_with_champion(ours, theirs, 1, 200)
    assert list(figures) == champion.figure_names(list(ours.tests))
    assert {name for name, figure in figures.items() if figure.value is None} == {
        "retrieval_over_champion",
        "text_matching_over_champion",
        "index_compatibility",
    }
    assert figures["retrieval_over_champion"].note == "the champion has no adapter for retrieval"


def test_without_retrieval_nothing_is_said_about_an_index(vectors: np.ndarray) -> None:
    known = evidence(vectors, np.ones(ROWS))
    alone = Evidence({"clustering": known.outcomes["clustering"]}, {}, {"clustering": known.tests["clustering"]})
    same = champion.champion_on_our_rows(alone, known, never)
    assert list(champion.compare_with_champion(alone, same, 1, 200)) == ["clustering_over_champion"]
