"""Batches of a token budget: texts of like length together, so that little is padding."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

Lengths = Sequence[int] | np.ndarray  # tokens of each text

# A group of this many batches is shuffled, then sorted by length: long enough to sort well, short enough to mix.
GROUP_BATCHES = 32


@dataclass(frozen=True)
class Part:
    """Rows that are drawn together: of a source of a mixture, or of one of its languages."""

    name: str  # where the recipe names it, for messages
    rows: np.ndarray
    batch_size: int
    weight: float


def token_budget_batches(lengths: Lengths, batch_tokens: int) -> Iterator[np.ndarray]:
    """Row numbers of each batch, longest first; rows x longest row keeps to `batch_tokens` (one row always fits)."""
    order = np.argsort(-np.asarray(lengths), kind="stable")
    yield from _cut(order, np.asarray(lengths), batch_tokens)


def shuffled_token_batches(lengths: Lengths, batch_tokens: int, seed: int, epoch: int) -> list[np.ndarray]:
    """One epoch of batches of at most `batch_tokens` tokens, grouped by length and shuffled; every row once."""
    length = np.asarray(lengths)
    rows_in_group = GROUP_BATCHES * max(1, batch_tokens // int(length.mean()))
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(length))
    batches: list[np.ndarray] = []
    for start in range(0, len(order), rows_in_group):
        group = order[start : start + rows_in_group]
        batches += _cut(group[np.argsort(-length[group], kind="stable")], length, batch_tokens)
    return [batches[i] for i in generator.permutation(len(batches))]


def shuffled_batches(lengths: Lengths, batch_size: int, seed: int, epoch: int, name: str) -> list[np.ndarray]:
    """One epoch of batches of exactly `batch_size` rows, grouped by length and shuffled; a remainder is left out, drawn
    anew in every epoch.

    The same (seed, epoch) always gives the same batches, so a position in the data is an epoch and a number.

    Args:
        name: where the recipe names the rows' sources, for the message.

    Raises:
        ValueError: there are fewer rows than one batch holds.
    """
    if len(lengths) < batch_size:
        raise ValueError(
            f"{name}: got {len(lengths)} rows, expected at least the {batch_size} of a batch (batch_size x "
            "engine.processes); lower batch_size, or give its sources more rows (files, max_rows)"
        )
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths))
    order = order[: len(order) // batch_size * batch_size]
    length = np.asarray(lengths)
    batches: list[np.ndarray] = []
    for start in range(0, len(order), batch_size * GROUP_BATCHES):
        group = order[start : start + batch_size * GROUP_BATCHES]
        group = group[np.argsort(length[group], kind="stable")]
        batches += [group[at : at + batch_size] for at in range(0, len(group), batch_size)]
    return [batches[i] for i in generator.permutation(len(batches))]


def _cut(order: np.ndarray, lengths: np.ndarray, batch_tokens: int) -> Iterator[np.ndarray]:
    start = 0
    while start < len(order):
        rows = max(1, batch_tokens // max(1, int(lengths[order[start]])))
        yield order[start : start + rows]
        start += rows


def mixed_batches(
    parts: Sequence[Sequence[np.ndarray]], weights: Sequence[float], seed: int, epoch: int
) -> list[np.ndarray]:
    """As many batches as all parts hold, each drawn from a part in proportion to its weight; each part in its order.

    A part that runs out begins again, so the shares hold however unequal the parts are. Batches of different parts may
    differ in size and length: each part is cut as its own source wants.
    """
    share = np.asarray(weights) / np.sum(weights)
    drawn = np.random.default_rng([seed, epoch]).choice(len(parts), size=sum(map(len, parts)), p=share)
    position = [0] * len(parts)
    batches = []
    for part in drawn.tolist():
        batches.append(parts[part][position[part] % len(parts[part])])
        position[part] += 1
    return batches


def drawn_batches(parts: Sequence[Part], lengths: Lengths, seed: int, epoch: int) -> list[np.ndarray]:
    """One epoch of a mixture: each step draws a part by its weight, and a batch of it in that part's own size.

    A batch holds one source, so that its texts are of one length and its in-batch negatives of one kind.

    Args:
        lengths: tokens of every row, whichever its part.
    """
    length = np.asarray(lengths)
    batches = [
        [part.rows[batch] for batch in shuffled_batches(length[part.rows], part.batch_size, seed, epoch, part.name)]
        for part in parts
    ]
    return mixed_batches(batches, [part.weight for part in parts], seed, epoch)


def by_language(sources: Sequence[Part], languages: Sequence[str], exponent: float | None) -> list[Part]:
    """The sources of a mixture, each taken apart by language: a batch holds one language, as it holds one source.

    A source's weight goes to its languages in proportion to rows ** exponent: 1 draws them as they come, 0 all alike,
    0.3 to 0.7 lifts the small ones (as XLM-R does, arXiv 1911.02116).

    Args:
        languages: of every row, `en` or, of a pair in two, `en-de`.
        exponent: None leaves the sources whole.

    Raises:
        ValueError: a source has fewer rows of a language than a batch holds.
    """
    if exponent is None:
        return list(sources)
    named = np.asarray(languages)
    parts: list[Part] = []
    for source in sources:
        found, counts = np.unique(named[source.rows], return_counts=True)
        if few := [f"{one} ({count})" for one, count in zip(found, counts, strict=True) if count < source.batch_size]:
            raise ValueError(
                f"{source.name}: a batch holds {source.batch_size} rows (batch_size x engine.processes), fewer are "
                f"there in {', '.join(few)}; lower batch_size, leave these languages out of the source's files, or set "
                "language_exponent to null"
            )
        weights = (source.weight * counts**exponent / (counts**exponent).sum()).tolist()
        parts += [
            replace(source, name=f"{source.name} ({one})", rows=source.rows[named[source.rows] == one], weight=weight)
            for one, weight in zip(found, weights, strict=True)
        ]
    return parts
