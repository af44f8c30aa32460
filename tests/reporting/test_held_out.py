"""The report's first card says what was won on held-out questions, and does not celebrate what few questions show."""

from typing import Any

from stages.reporting.held_out import held_out_questions


def metrics(**over: tuple[float, float, float]) -> dict[str, Any]:
    """Metrics in which the retrieval adapter scores 0.8 and differs from models by (figure, low, high)."""
    rows = {model: dict(zip(("figure", "low", "high"), ends, strict=True)) for model, ends in over.items()}
    return {
        "retrieval": {"retrieval": {"faq": {}, "mean": {"ndcg_at_10": 0.8}}},
        "comparisons": {"retrieval": {"over": rows}},
    }


def asked(number: int) -> dict[str, dict[str, int]]:
    return {"faq": {"queries": number}}


def test_a_sure_gain_a_sure_loss_and_no_sure_difference_are_told_apart() -> None:
    found = metrics(teacher=(0.02, 0.005, 0.04), bm25=(-0.03, -0.05, -0.01), base=(0.01, -0.01, 0.03))
    assert held_out_questions(found, asked(400)) == [
        "On 400 held-out questions (faq), the release has an nDCG@10 of 80.0.",
        "It is surely better than its teacher: +2.0 points (+0.5 to +4.0).",
        "It is surely worse than BM25: −3.0 points (−5.0 to −1.0).",
        "No sure difference from the student without the adapter: +1.0 points (−1.0 to +3.0).",
    ]


def test_questions_of_sources_that_the_score_does_not_cover_are_not_counted() -> None:
    first = held_out_questions(metrics(teacher=(0.05, 0.01, 0.09)), asked(90) | {"unseen": {"queries": 50}})[0]
    assert first.startswith("On 90 held-out questions (faq), ")


def test_few_questions_come_with_a_warning() -> None:
    last = held_out_questions(metrics(teacher=(0.05, 0.01, 0.09)), asked(20))[-1]
    assert last.startswith("These are few questions: an interval is up to 8 points wide")


def test_a_wide_interval_comes_with_a_warning_too() -> None:
    last = held_out_questions(metrics(teacher=(0.05, -0.05, 0.15)), asked(60))[-1]
    assert last.startswith("These are few questions: an interval is up to 20 points wide")


def test_many_questions_come_without_a_warning() -> None:
    assert len(held_out_questions(metrics(teacher=(0.05, 0.01, 0.09)), asked(200))) == 2


def test_questions_that_nobody_asked_are_said_to_be_made() -> None:
    found = metrics(teacher=(0.05, 0.01, 0.09))
    found["origins"] = {
        "faq": {"given": {"queries": 150}, "model": {"queries": 30}}, "manual": {"heading": {"queries": 20}}
    }  # fmt: skip
    assert held_out_questions(found, asked(200))[1] == (
        "Nobody asked 50 of these questions: they were made (30 of a language model's answers, 20 of headings). They "
        "compare models; how well real questions are answered they do not say."
    )


def test_without_retrieval_there_is_no_card() -> None:
    assert held_out_questions({"classification": {}}, {}) == []
