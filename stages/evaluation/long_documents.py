"""Long documents by length: needles and pass keys hidden in them, and articles found by their first sentence.

Document i is the one relevant to query i.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.corpus.needles import HELD_OUT_FACTS, Needle, fact, passkey, plant
from stages.corpus.sentences import sentences
from stages.corpus.tables import read_split, read_table
from stages.evaluation.comparison import draws, overall
from stages.evaluation.embedding_cache import Embed, EmbeddingCache
from stages.metrics import bootstrap
from stages.metrics.bootstrap import Estimate
from stages.metrics.retrieval import ndcg_at_10, rank
from stages.metrics.row_outcomes import Mean
from stages.modeling.backbones import set_rope_theta
from stages.modeling.encoder import Encoder, place, saved_encoder
from stages.modeling.truncation import first_tokens, token_counts
from stages.recipe.evaluate import EvaluateLong
from stages.tracking.digests import digest

# Number of ranks that count: only the first where a single text holds the answer.
RANKS = {"needle": 1, "passkey": 1, "articles": 10}
NEEDLES: dict[str, Callable[[str], Needle]] = {
    "needle": lambda key: fact(key, HELD_OUT_FACTS),
    "passkey": passkey,
}
# Task, model, RoPE theta at inference, length in tokens -> nDCG of each query.
Scores = dict[str, dict[str, dict[str, dict[str, np.ndarray]]]]


@dataclass(frozen=True)
class LongDocumentTask:
    """A query for each document, and the number of ranks that count."""

    queries: list[str]
    documents: tuple[str, ...]
    ranks: int


def long_scores(
    students: Mapping[str, Path],
    curated: Path,
    settings: EvaluateLong,
    *,
    thetas: Mapping[str, Sequence[float]],
    precision: str,
    cache: EmbeddingCache,
) -> Scores:
    """Score every student at its own RoPE theta and at others, for each length; empty where the recipe has no sources.

    Args:
        students: folders by name; all have the same tokenizer.
        thetas: the other RoPE thetas, by the students' names.
    """
    found: Scores = {}
    if settings.haystacks is None and settings.articles is None:
        return found
    of_length: dict[int, dict[str, LongDocumentTask]] = {}
    for model, folder in students.items():
        # Documents are made to their length, so this limit cuts none.
        encoder = place(saved_encoder(folder, None, 2 * max(settings.lengths)), precision=precision, packing=False)
        key = ("long", precision, digest(folder))
        of_length = of_length or {length: long_tasks(encoder, curated, settings, length) for length in settings.lengths}
        own = encoder.settings.rope_theta
        for theta in dict.fromkeys(theta for theta in (own, *thetas[model]) if theta is not None):
            set_rope_theta(encoder.backbone, theta)
            encode = functools.partial(encoder.encode, progress="long documents")
            embed = cache.cached(encode, *key, theta_name(theta))
            for length, tasks in of_length.items():
                for task, rows in task_scores(embed, tasks).items():
                    of_theta = found.setdefault(task, {}).setdefault(model, {}).setdefault(theta_name(theta), {})
                    of_theta[str(length)] = rows
    return found


def theta_name(theta: float) -> str:
    """Write a RoPE theta as a key, such as `10000`."""
    return f"{theta:.0f}"


def task_scores(embed: Embed, tasks: Mapping[str, LongDocumentTask]) -> dict[str, np.ndarray]:
    """Compute nDCG of each task's queries over the ranks that count; documents that tasks share are embedded once."""
    vectors = {
        documents: embed(documents, "document") for documents in {task.documents: None for task in tasks.values()}
    }
    found = {}
    for name, task in tasks.items():
        ranked, _ = rank(embed(task.queries, "query"), vectors[task.documents], task.ranks)
        found[name] = ndcg_at_10(ranked, [{row} for row in range(len(task.queries))])
    return found


def figures(scores: Scores) -> dict[str, Any]:
    """Replace each query's score by the mean over queries."""
    return {
        task: {
            model: {
                theta: {length: float(rows.mean()) for length, rows in by_length.items()}
                for theta, by_length in by_theta.items()
            }
            for model, by_theta in by_model.items()
        }
        for task, by_model in scores.items()
    }


def summary(scores: Scores, theta: float, seed: int, num_resamples: int) -> dict[str, float | Estimate]:
    """Average over lengths after the long-context phase, and its gain over the model before, both at one RoPE theta.

    A query and its answer occur at every length, so they are drawn together.
    """
    flat: dict[str, float | Estimate] = {}
    for task, by_model in scores.items():
        means = {
            model: {task: Mean(np.mean(list(by_model[model][theta_name(theta)].values()), axis=0))}
            for model in ("after", "before")
        }
        after, before = (overall(by_task) for by_task in draws(means, seed, num_resamples).values())
        flat[f"long_{task}_ndcg_at_{RANKS[task]}"] = after.figure
        flat[f"long_{task}_over_before"] = bootstrap.difference(after, before)
    return flat


def long_tasks(encoder: Encoder, curated: Path, settings: EvaluateLong, length: int) -> dict[str, LongDocumentTask]:
    """Make the tasks of the recipe's sources at one length in tokens of the encoder."""
    tasks: dict[str, LongDocumentTask] = {}
    if settings.haystacks is not None:
        tasks |= needle_tasks(encoder, curated, settings.haystacks, settings.num_documents, length)
    if settings.articles is not None:
        tasks |= article_task(encoder, curated, settings.articles, length)
    return tasks


def needle_tasks(
    encoder: Encoder, curated: Path, source: str, num_documents: int, length: int
) -> dict[str, LongDocumentTask]:
    """Make `needle` and `passkey`: each document is the beginning of another long text, with one of both hidden in it.

    All documents are `length` tokens long. Depths are spread evenly: the needles' from the beginning to the end, the
    pass keys' backwards.

    Raises:
        ValueError: too few texts are long enough.
    """
    hidden = {
        task: [make(f"evaluation/{task}/{number}") for number in range(num_documents)] for task, make in NEEDLES.items()
    }
    texts = _long_texts(encoder, curated, source, num_documents, length)
    depths = np.linspace(0.0, 1.0, num_documents).tolist()
    documents = tuple(
        _hide_both(encoder, text, [(depth, needle), (1 - depth, key)], length)
        for text, needle, key, depth in zip(texts, *hidden.values(), depths, strict=True)
    )
    return {
        task: LongDocumentTask([needle.query for needle in needles], documents, RANKS[task])
        for task, needles in hidden.items()
    }


def article_task(encoder: Encoder, curated: Path, source: str, length: int) -> dict[str, LongDocumentTask]:
    """Make `articles`: each is cut at `length` tokens, and searched by its first sentence among all of them."""
    rows = _untrained_rows(curated, "pairs", source)
    room = _room(encoder, "", length)
    documents = tuple(first_tokens(encoder, row["document"], room) for row in rows)
    return {"articles": LongDocumentTask([row["query"] for row in rows], documents, RANKS["articles"])}


def _long_texts(encoder: Encoder, curated: Path, source: str, num_documents: int, length: int) -> list[str]:
    """Choose test texts of at least `length` tokens: the first text of each entity before the second of any."""
    rows = _untrained_rows(curated, "documents", source)
    counts = token_counts(encoder, [row["text"] for row in rows], "document")
    texts_of_entity: dict[str, int] = {}
    found: list[tuple[int, str]] = []
    for row, count in zip(rows, counts, strict=True):
        if count >= length:
            found.append((texts_of_entity.setdefault(row["entity"], 0), row["text"]))
            texts_of_entity[row["entity"]] += 1
    if len(found) < num_documents:
        raise ValueError(
            f"evaluate.long: got {len(found)} test texts of {source} with {length} tokens, expected {num_documents}; "
            "lower lengths or num_documents, or give the source longer texts or a larger test split"
        )
    return [text for _, text in sorted(found, key=lambda numbered: numbered[0])[:num_documents]]


def _hide_both(encoder: Encoder, text: str, hidden: Sequence[tuple[float, Needle]], length: int) -> str:
    """Hide needles at their depths in the beginning of a text, `length` tokens in all."""
    room = _room(encoder, " ".join(needle.sentence for _, needle in hidden), length)
    document = first_tokens(encoder, text, room)
    for depth, needle in hidden:
        document = plant(sentences(document), needle, depth)
    return document


def _room(encoder: Encoder, hidden: str, length: int) -> int:
    """Count the tokens of `length` that are left beside a hidden text and the encoder's prompt and special tokens.

    Raises:
        ValueError: none is left.
    """
    taken = token_counts(encoder, [hidden], "document")[0]
    if taken >= length:
        raise ValueError(
            f"evaluate.long.lengths: got {length} tokens, and the hidden sentences take {taken} of them; raise it"
        )
    return length - taken


def _untrained_rows(curated: Path, kind: str, source: str) -> list[dict[str, Any]]:
    """Read the test rows of a source whose entity is in no source's train pairs, under whatever name.

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
