"""First card of the report: retrieval on held-out questions against the teacher, BM25 and the base, in sentences."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from stages.reporting.number_format import points, score
from stages.reporting.report_tables import TASKS, main_score, over
from stages.reporting.verdicts import IntervalEstimate

RETRIEVAL = TASKS[0]
PEERS = {"teacher": "its teacher", "bm25": "BM25", "base": "the student without the adapter"}
# Below so many questions, or above so wide an interval in points, figures are a first impression.
FEW_QUESTIONS, WIDE_POINTS = 50, 10.0
# How questions that people did not ask were made, by the column `origin` of pairs.
MADE = {
    "heading": "headings",
    "question-heading": "headings that are questions",
    "first-sentence": "first sentences",
    "planted": "sentences planted in long texts",
    "model": "a language model's answers",
}


def held_out_questions(metrics: Mapping[str, Any], queries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say what the retrieval adapter won on the test split; empty where retrieval was not measured.

    Args:
        metrics: as the evaluation writes them.
        queries: by source, the number of `queries` in its test split.
    """
    ours = main_score(metrics, RETRIEVAL, RETRIEVAL.key)
    compared = {name: change for model, name in PEERS.items() if (change := over(metrics, RETRIEVAL, model))}
    if ours is None or not compared:
        return []
    measured = metrics[RETRIEVAL.key][RETRIEVAL.key]  # not the sources on which only unseen text is measured
    asked = {source: int(of_source["queries"]) for source, of_source in queries.items() if source in measured}
    number = sum(asked.values())
    where = f"On {number} held-out questions ({', '.join(asked)})" if number else "On the held-out questions"
    sentences = [f"{where}, the release has an nDCG@10 of {score(ours)}."]
    sentences += _made(metrics.get("origins") or {})
    sentences += [_sentence(name, change) for name, change in compared.items()]
    width = max((_width(change) for change in compared.values()), default=0.0)
    if (number and number < FEW_QUESTIONS) or width > WIDE_POINTS:
        sentences.append(
            f"These are few questions: an interval is up to {width:.0f} points wide, so that smaller differences "
            "cannot show. Hold more questions out before you rely on a figure."
        )
    return sentences


def _made(origins: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """Say how many questions nobody asked, and how they were made; empty where people asked them all."""
    made = Counter[str]()
    for by_origin in origins.values():
        made.update({MADE[origin]: figures["queries"] for origin, figures in by_origin.items() if origin in MADE})
    if not made:
        return []
    kinds = ", ".join(f"{number} of {kind}" for kind, number in made.items())
    return [
        f"Nobody asked {made.total()} of these questions: they were made ({kinds}). They compare models; how well real "
        "questions are answered they do not say."
    ]


def _sentence(name: str, change: IntervalEstimate) -> str:
    shown = f"{points(change.figure)} points"
    if change.low is None or change.high is None:
        return f"Compared with {name}: {shown}, without an interval."
    interval = f"{shown} ({points(change.low)} to {points(change.high)})"
    if change.low > 0:
        return f"It is surely better than {name}: {interval}."
    if change.high < 0:
        return f"It is surely worse than {name}: {interval}."
    return f"No sure difference from {name}: {interval}."


def _width(change: IntervalEstimate) -> float:
    return 0.0 if change.low is None or change.high is None else 100 * (change.high - change.low)
