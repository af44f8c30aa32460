"""Long documents, by length: needles and pass keys planted in them, and articles found by their first sentence.

Document i is the one relevant to query i.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.corpus.packaged import planted_needles as needles
from stages.corpus.packaged.planted_needles import Needle
from stages.corpus.sentences import sentences
from stages.corpus.tables import read_split, read_table
from stages.evaluation.comparison import draws, overall
from stages.evaluation.embedding_cache import Embed, KeptVectors
from stages.metrics import bootstrap
from stages.metrics.bootstrap import Estimate
from stages.metrics.retrieval import ndcg_at_10, rank
from stages.metrics.row_outcomes import Mean
from stages.modeling.backbones import set_rope_theta
from stages.modeling.encoder import Encoder, place, saved_encoder
from stages.modeling.truncation import prefix, token_counts
from stages.tracking.runs import digest

# How many ranks count: nDCG@1 where one text alone holds the answer.
RANKS = {"needle": 1, "passkey": 1, "articles": 10}
HIDDEN: dict[str, Callable[[str], Needle]] = {
    "needle": lambda key: needles.fact(key, needles.HELD_OUT_FACTS),
    "passkey": needles.passkey,
}
# Task, model, RoPE theta at inference, length in tokens -> nDCG of each query.
Scores = dict[str, dict[str, dict[str, dict[str, np.ndarray]]]]


@dataclass(frozen=True)
class LongTask:
    """A query for each document, and how many ranks count."""

    queries: list[str]
    documents: tuple[str, ...]
    ranks: int


def long_scores(
    students: Mapping[str, Path],
    tasks: Callable[[Encoder, int], Mapping[str, LongTask]],
    *,
    lengths: Sequence[int],
    thetas: Mapping[str, Sequence[float]],
    precision: str,
    kept: KeptVectors,
) -> Scores:
    """Score every student at its own RoPE theta and at others, for each length.

    Args:
        students: folders by name; one tokenizer among them.
        tasks: by name, of an encoder's tokens and a length.
        thetas: the others, by the students' names.
    """
    found: Scores = {}
    of_length: dict[int, Mapping[str, LongTask]] = {}
    for model, folder in students.items():
        # Every document is made to its length, so nothing is cut here.
        encoder = place(saved_encoder(folder, None, 2 * max(lengths)), precision=precision, packing=False)
        own, identity = encoder.settings.rope_theta, ("long", precision, digest(folder))
        of_length = of_length or {length: tasks(encoder, length) for length in lengths}
        for theta in dict.fromkeys(one for one in (own, *thetas[model]) if one is not None):
            set_rope_theta(encoder.backbone, theta)
            embed = kept.by(functools.partial(encoder.encode, progress="long documents"), *identity, theta_name(theta))
            for length, by_name in of_length.items():
                for name, rows in scores(embed, by_name).items():
                    of_theta = found.setdefault(name, {}).setdefault(model, {}).setdefault(theta_name(theta), {})
                    of_theta[str(length)] = rows
    return found


def figures(scored: Scores) -> dict[str, Any]:
    """The same with a mean over queries in place of each query's score."""
    return {
        task: {
            model: {
                theta: {length: float(rows.mean()) for length, rows in by_length.items()}
                for theta, by_length in by_theta.items()
            }
            for model, by_theta in by_model.items()
        }
        for task, by_model in scored.items()
    }


def theta_name(theta: float) -> str:
    """A RoPE theta as a key: `10000`."""
    return f"{theta:.0f}"


def summary(scored: Scores, theta: float, seed: int, num_resamples: int) -> dict[str, float | Estimate]:
    """Mean over lengths after the long-context phase, and its gain over before, both at one RoPE theta.

    A query and what answers it stand at every length, so they are drawn together.
    """
    flat: dict[str, float | Estimate] = {}
    for task, by_model in scored.items():
        samples = {
            model: {task: Mean(np.mean(list(by_model[model][theta_name(theta)].values()), axis=0))}
            for model in ("after", "before")
        }
        after, before = (overall(by_length) for by_length in draws(samples, seed, num_resamples).values())
        flat[f"long_{task}_ndcg_at_{RANKS[task]}"] = after.figure
        flat[f"long_{task}_over_before"] = bootstrap.difference(after, before)
    return flat


def long_tasks(
    encoder: Encoder, curated: Path, haystacks: str | None, articles: str | None, num_documents: int, length: int
) -> dict[str, LongTask]:
    """What the named sources give at one length in tokens of the encoder."""
    tasks: dict[str, LongTask] = {}
    if haystacks is not None:
        tasks |= planted(encoder, curated, haystacks, num_documents, length)
    if articles is not None:
        tasks |= cut_articles(encoder, curated, articles, length)
    return tasks


def planted(encoder: Encoder, curated: Path, source: str, num_documents: int, length: int) -> dict[str, LongTask]:
    """`needle` and `passkey`: each document is the beginning of another long text, with one of both in it.

    All are `length` tokens long. The depths spread evenly, of needles from the beginning to the end, of pass keys back.

    Raises:
        ValueError: too few texts are long enough.
    """
    hidden = {
        task: [invent(f"evaluation/{task}/{number}") for number in range(num_documents)]
        for task, invent in HIDDEN.items()
    }
    depths = np.linspace(0.0, 1.0, num_documents).tolist()
    documents = tuple(
        _with_both(encoder, text, [(depth, needle), (1 - depth, passkey)], length)
        for text, needle, passkey, depth in zip(
            _long_enough(encoder, curated, source, num_documents, length), *hidden.values(), depths, strict=True
        )
    )
    return {task: LongTask([one.query for one in of_task], documents, RANKS[task]) for task, of_task in hidden.items()}


def cut_articles(encoder: Encoder, curated: Path, source: str, length: int) -> dict[str, LongTask]:
    """`articles`: cut at `length` tokens, each sought by its first sentence among all of them."""
    rows = _not_trained_on(curated, "pairs", source)
    room = _room(encoder, "", length)
    documents = tuple(prefix(encoder, row["document"], room) for row in rows)
    return {"articles": LongTask([row["query"] for row in rows], documents, RANKS["articles"])}


def scores(embed: Embed, tasks: Mapping[str, LongTask]) -> dict[str, np.ndarray]:
    """NDCG of each task's queries over the ranks that count; documents that tasks share are read once."""
    known = {documents: embed(documents, "document") for documents in {task.documents: None for task in tasks.values()}}
    found = {}
    for name, task in tasks.items():
        ranked, _ = rank(embed(task.queries, "query"), known[task.documents], task.ranks)
        found[name] = ndcg_at_10(ranked, [{row} for row in range(len(task.queries))])
    return found


def _long_enough(encoder: Encoder, curated: Path, source: str, num_documents: int, length: int) -> list[str]:
    """Test texts of at least `length` tokens: the first of each speech before the second of any."""
    rows = _not_trained_on(curated, "documents", source)
    counts = token_counts(encoder, [row["text"] for row in rows], "document")
    turns: dict[str, int] = {}
    found: list[tuple[int, str]] = []
    for row, count in zip(rows, counts, strict=True):
        if count >= length:
            found.append((turns.setdefault(row["entity"], 0), row["text"]))
            turns[row["entity"]] += 1
    if len(found) < num_documents:
        raise ValueError(
            f"evaluate.long: got {len(found)} test texts of {source} with {length} tokens, expected {num_documents}; "
            "lower lengths or num_documents, or give the source longer texts or a larger test split"
        )
    return [text for _, text in sorted(found, key=lambda one: one[0])[:num_documents]]


def _with_both(encoder: Encoder, text: str, hidden: Sequence[tuple[float, Needle]], length: int) -> str:
    """The beginning of a text with needles at their depths, `length` tokens in all."""
    room = _room(encoder, " ".join(needle.sentence for _, needle in hidden), length)
    document = prefix(encoder, text, room)
    for depth, needle in hidden:
        document = needles.plant(sentences(document), needle, depth)
    return document


def _room(encoder: Encoder, beside: str, length: int) -> int:
    """Tokens left of `length` beside another text and what stands around every document.

    Raises:
        ValueError: none are left.
    """
    taken = token_counts(encoder, [beside], "document")[0]
    if taken >= length:
        raise ValueError(f"evaluate.long.lengths: {length} tokens, and what is hidden takes {taken} of them; raise it")
    return length - taken


def _not_trained_on(curated: Path, kind: str, source: str) -> list[dict[str, Any]]:
    """Test rows of a source whose entity is in no pair of any source's train split, under whatever name.

    Raises:
        ValueError: fewer than two are left.
    """
    rows = read_split(curated, kind, "test", [source]).to_pylist()
    trained = set(read_table(curated / "pairs" / "train.parquet")["entity"].to_pylist())
    left = [row for row in rows if row["entity"] not in trained]
    if len(left) < 2:
        raise ValueError(
            f"evaluate.long: {len(rows) - len(left)} of the {len(rows)} test rows of {source} are of entities that "
            "pairs are trained on; give all sources that read them the same splits"
        )
    return left
