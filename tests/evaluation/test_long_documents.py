"""Long documents: made to length, hidden where they should be, scored by hand, at every theta."""

import re
from pathlib import Path

import numpy as np
import pytest

from stages.corpus.tables import SCHEMAS, write_table
from stages.evaluation.embedding_cache import EmbeddingCache
from stages.evaluation.long_documents import (
    LongDocumentTask,
    Scores,
    article_task,
    figures,
    long_scores,
    long_tasks,
    needle_tasks,
    summary,
    task_scores,
)
from stages.metrics.bootstrap import Estimate
from stages.modeling.encoder import Encoder, EncoderSettings, load_encoder, saved_encoder
from stages.modeling.truncation import token_counts
from stages.recipe.evaluate import EvaluateLong

ORIGIN = {"source": "speeches", "language": "en", "license": "MIT"}
PROMPTS = {"query": "", "document": "document : "}
WORDS = ["ba", "be", "bi", "bo", "bu", "ca", "ce", "ci", "co", "cu"]


@pytest.fixture
def encoder(backbones: dict[str, Path]) -> Encoder:
    return load_encoder(str(backbones["eurobert"]), EncoderSettings("mean", PROMPTS, 1000, 10_000.0))


def text(number: int, num_sentences: int = 40) -> str:
    """Sentences of three tokens and a full stop, other ones in every text."""
    return " ".join(f"{WORDS[number % 10]} {WORDS[place % 10]} co." for place in range(num_sentences)).replace(
        ". ", ". Ba "
    )


def write_documents(curated: Path, rows: list[tuple[str, str]], trained: tuple[str, ...] = ()) -> None:
    """Test documents of (entity, text), and training pairs of some entities."""
    documents = [{"id": str(at), "entity": entity, "text": one, **ORIGIN} for at, (entity, one) in enumerate(rows)]
    write_table(curated / "documents/test.parquet", documents, SCHEMAS["documents"])
    pairs = [{"id": one, "entity": one, "query": one, "document": one, **ORIGIN} for one in trained]
    write_table(curated / "pairs/train.parquet", pairs, SCHEMAS["pairs"])


def test_needles_lie_at_even_depths_in_documents_of_the_length_asked_for(encoder: Encoder, tmp_path: Path) -> None:
    write_documents(tmp_path, [(f"speech {number}", text(number)) for number in range(6)])
    tasks = needle_tasks(encoder, tmp_path, "speeches", num_documents=5, length=180)
    assert {name: task.ranks for name, task in tasks.items()} == {"needle": 1, "passkey": 1}
    assert tasks["needle"].documents == tasks["passkey"].documents
    documents = tasks["needle"].documents
    assert token_counts(encoder, documents, "document") == [180] * 5
    assert len(set(tasks["needle"].queries)) == len(set(tasks["passkey"].queries)) == 5
    sentence = re.compile(r"The pass key of ([\w ]+) is \d+\.")
    found = [sentence.search(one) for one in documents]
    assert [match and f"What is the pass key of {match[1]}?" for match in found] == tasks["passkey"].queries
    places = [match.start() / len(one) for match, one in zip(found, documents, strict=True) if match]
    assert places == pytest.approx([0.8, 0.65, 0.45, 0.2, 0.0], abs=0.12)  # pass keys from the end to the beginning
    assert places == sorted(places, reverse=True)
    assert all(len(sentence.findall(one)) == 1 for one in documents)


def test_every_speech_gives_one_haystack_before_any_gives_two(encoder: Encoder, tmp_path: Path) -> None:
    rows = [("a", text(0)), ("a", text(1)), ("a", text(2, 5)), ("b", text(3)), ("c", text(4))]
    write_documents(tmp_path, rows)

    def haystacks(number: int) -> list[str]:
        documents = needle_tasks(encoder, tmp_path, "speeches", number, 100)["passkey"].documents
        return [max(WORDS, key=lambda word: one.count(f"Ba {word} ")) for one in documents]

    assert haystacks(3) == ["ba", "bo", "bu"]
    assert haystacks(4) == ["ba", "bo", "bu", "be"]
    with pytest.raises(ValueError, match=r"got 20 tokens, and the hidden sentences take \d\d of them; raise it"):
        needle_tasks(encoder, tmp_path, "speeches", 3, 20)
    with pytest.raises(ValueError, match="got 4 test texts of speeches with 100 tokens, expected 5; lower lengths or"):
        haystacks(5)


def test_what_was_trained_on_is_left_out(encoder: Encoder, tmp_path: Path) -> None:
    write_documents(tmp_path, [("a", text(0)), ("b", text(1)), ("c", text(2))], trained=("a",))
    assert len(needle_tasks(encoder, tmp_path, "speeches", 2, 100)["needle"].documents) == 2
    with pytest.raises(ValueError, match="got 2 test texts"):
        needle_tasks(encoder, tmp_path, "speeches", 3, 100)
    write_documents(tmp_path, [("a", text(0)), ("b", text(1))], trained=("a", "b"))
    with pytest.raises(ValueError, match=r"2 of the 2 test rows of speeches .* give all sources .* the same splits"):
        needle_tasks(encoder, tmp_path, "speeches", 2, 100)


def write_articles(curated: Path) -> None:
    rows = [{"id": str(at), "entity": f"e{at}", "query": f"{WORDS[at]} ba", "document": text(at)} for at in range(4)]
    write_table(curated / "pairs/test.parquet", [row | ORIGIN for row in rows], SCHEMAS["pairs"])


def test_articles_are_cut_at_the_length(encoder: Encoder, tmp_path: Path) -> None:
    write_documents(tmp_path, [])
    write_articles(tmp_path)
    task = article_task(encoder, tmp_path, "speeches", 50)["articles"]
    assert token_counts(encoder, task.documents, "document") == [50] * 4
    assert [len(one) < len(text(at)) for at, one in enumerate(task.documents)] == [True] * 4
    assert (task.queries[2], task.ranks) == ("bi ba", 10)
    whole = article_task(encoder, tmp_path, "speeches", 5000)["articles"]
    assert whole.documents == tuple(text(at) for at in range(4))


@pytest.mark.parametrize(
    ("ranks", "places", "expected"),
    [(1, [0, 1, 2], 1.0), (1, [1, 0, 2], 1 / 3), (10, [0, 1, 2], 1.0)],
)
def test_a_score_is_the_share_of_queries_that_find_their_document(
    backbones: dict[str, Path], ranks: int, places: list[int], expected: float
) -> None:
    same = load_encoder(str(backbones["eurobert"]), EncoderSettings("mean", {"query": "", "document": ""}, 100, 1e4))
    texts = ["ba be bi", "co co cu", "du fa fe fi"]
    task = LongDocumentTask(texts, tuple(texts[place] for place in places), ranks)
    found = task_scores(same.encode, {"one": task, "again": task})
    assert {name: rows.mean() for name, rows in found.items()} == pytest.approx({"one": expected, "again": expected})


def test_figures_of_every_student_theta_and_length(encoder: Encoder, tmp_path: Path) -> None:
    curated = tmp_path / "curated"
    write_documents(curated, [(f"speech {number}", text(number)) for number in range(4)])
    write_articles(curated)
    students = {"before": tmp_path / "before", "after": tmp_path / "after"}
    encoder.save(students["before"])
    encoder.backbone.layers[0].self_attn.q_proj.weight.data.mul_(5)
    encoder.save(students["after"])

    settings = EvaluateLong(
        haystacks="speeches", articles="speeches", lengths=(100, 180), num_documents=4, rope_thetas=(40.0,)
    )
    thetas = {"before": [10_000.0], "after": [40.0, 10_000.0]}
    cache = EmbeddingCache(tmp_path / "cache")
    found = long_scores(students, curated, settings, thetas=thetas, precision="float32", cache=cache)
    assert set(found) == {"needle", "passkey", "articles"}
    for by_model in found.values():
        assert {name: list(by_theta) for name, by_theta in by_model.items()} == {
            "before": ["10000"],
            "after": ["10000", "40"],
        }
        assert all(set(one) == {"100", "180"} for by_theta in by_model.values() for one in by_theta.values())
    alone = saved_encoder(students["after"], 40.0, 360)
    expected = task_scores(alone.encode, long_tasks(alone, curated, settings, 180))
    for name, by_model in found.items():
        np.testing.assert_allclose(by_model["after"]["40"]["180"], expected[name])
        assert figures(found)[name]["after"]["40"]["180"] == pytest.approx(expected[name].mean())
    nothing = settings.model_copy(update={"haystacks": None, "articles": None})
    assert long_scores(students, curated, nothing, thetas=thetas, precision="float32", cache=cache) == {}


def test_the_summary_is_a_mean_over_lengths_and_its_gain() -> None:
    one, half, none = np.ones(20), np.arange(20) % 2.0, np.zeros(20)
    found: Scores = {
        "needle": {
            "before": {"10000": {"512": half, "1024": none}},
            "after": {"10000": {"512": one, "1024": none}, "40000": {"512": one, "1024": one}},
        },
        "articles": {name: {"10000": {"512": half, "1024": one}} for name in ("before", "after")},
    }
    flat = summary(found, 10_000.0, seed=0, num_resamples=400)
    assert (flat["long_needle_ndcg_at_1"], flat["long_articles_ndcg_at_10"]) == (0.5, 0.75)
    gain, none_gained = flat["long_needle_over_before"], flat["long_articles_over_before"]
    assert isinstance(gain, Estimate) and isinstance(none_gained, Estimate)
    assert gain.figure == 0.25 and 0 < gain.low < 0.25 < gain.high < 0.5
    assert none_gained == Estimate(0.0, 0.0, 0.0, 1.0)
