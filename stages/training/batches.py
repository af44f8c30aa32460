"""Batches of row numbers: texts of similar length together, so that little is padding; mixtures of sources.

The same seed and epoch always give the same batches, so a position in the data is an epoch and a number.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from stages.modeling.token_batches import Lengths, cut_by_tokens

EpochBatches = Callable[[int], list[np.ndarray]]  # epoch -> batches of row numbers

# A group of this many batches is shuffled, then sorted by length: long enough to sort well, short enough to mix.
GROUP_BATCHES = 32


@dataclass(frozen=True)
class MixturePart:
    """Rows that are drawn together: a source of a mixture, or one language of a source."""

    name: str  # the part's key in the recipe, for error messages
    rows: np.ndarray
    batch_size: int
    weight: float


def shuffled_token_batches(lengths: Lengths, batch_tokens: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Return an epoch of batches of at most `batch_tokens` tokens, grouped by length and shuffled; every row once."""
    length = np.asarray(lengths)
    rows_in_group = GROUP_BATCHES * max(1, batch_tokens // int(length.mean()))
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(length))
    batches: list[np.ndarray] = []
    for start in range(0, len(order), rows_in_group):
        group = order[start : start + rows_in_group]
        batches += cut_by_tokens(group[np.argsort(-length[group], kind="stable")], length, batch_tokens)
    return [batches[i] for i in generator.permutation(len(batches))]


def shuffled_batches(lengths: Lengths, batch_size: int, seed: int, epoch: int, name: str) -> list[np.ndarray]:
    """Return an epoch of batches of exactly `batch_size` rows, grouped by length and shuffled.

    Fewer rows than that make a single batch, with a warning. The remainder of the rows is left out; each epoch leaves
    out other rows.

    Args:
        name: the key in the recipe that names the rows' sources, for messages.

    Raises:
        ValueError: there are fewer than two rows, from which nothing can be learnt by comparison.
    """
    if len(lengths) < 2:
        raise ValueError(
            f"{name}: got {len(lengths)} rows, expected at least 2; give its sources more rows (files, max_rows)"
        )
    if len(lengths) < batch_size:
        _warn_of_small_batch(name, len(lengths), batch_size)
        batch_size = len(lengths)
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


@cache
def _warn_of_small_batch(name: str, num_rows: int, batch_size: int) -> None:
    """Warn once, not at every epoch."""
    warnings.warn(
        f"{name}: got {num_rows} rows, fewer than the {batch_size} of a batch (batch_size x engine.processes); a batch "
        "holds them all",
        stacklevel=3,
    )


def mixed_batches(
    parts: Sequence[Sequence[np.ndarray]], weights: Sequence[float], seed: int, epoch: int
) -> list[np.ndarray]:
    """Return as many batches as all parts hold, each drawn from a part in proportion to the part's weight.

    The batches of a part keep their order. A part that runs out begins again, so that the shares hold however unequal
    the parts are. Batches of different parts may differ in size and length.
    """
    share = np.asarray(weights) / np.sum(weights)
    drawn = np.random.default_rng([seed, epoch]).choice(len(parts), size=sum(map(len, parts)), p=share)
    position = [0] * len(parts)
    batches = []
    for part in drawn.tolist():
        batches.append(parts[part][position[part] % len(parts[part])])
        position[part] += 1
    return batches


def drawn_batches(parts: Sequence[MixturePart], lengths: Lengths, seed: int, epoch: int) -> list[np.ndarray]:
    """Return an epoch of a mixture: each step draws a part by its weight, and a batch of that part's own size.

    A batch holds a single source, so that its texts have similar lengths and its in-batch negatives are of one kind.

    Args:
        lengths: tokens of every row of all parts.
    """
    length = np.asarray(lengths)
    batches = [
        [part.rows[batch] for batch in shuffled_batches(length[part.rows], part.batch_size, seed, epoch, part.name)]
        for part in parts
    ]
    return mixed_batches(batches, [part.weight for part in parts], seed, epoch)


def split_by_language(
    sources: Sequence[MixturePart], languages: Sequence[str], exponent: float | None
) -> list[MixturePart]:
    """Split each source of a mixture by language, so that a batch holds a single language.

    A source's weight is shared among its languages in proportion to rows ** exponent: 1 keeps their natural shares, 0
    draws all of them equally often, 0.3 to 0.7 lifts the small ones (as XLM-R does, arXiv 1911.02116).

    Args:
        languages: language of every row, such as `en`, or `en-de` for a pair in two languages.
        exponent: None leaves the sources whole.

    A language of a single row has no negatives, and is left out with a warning.

    Raises:
        ValueError: a source has a single row of each of its languages.
    """
    if exponent is None:
        return list(sources)
    language_of = np.asarray(languages)
    parts: list[MixturePart] = []
    for source in sources:
        found, counts = np.unique(language_of[source.rows], return_counts=True)
        if alone := found[counts < 2].tolist():
            if len(alone) == len(found):
                raise ValueError(
                    f"{source.name}: got one row of each language ({', '.join(alone)}), expected at least 2 of one; "
                    "set language_exponent to null, or give the source more rows"
                )
            warnings.warn(f"{source.name}: got one row of {', '.join(alone)}, which is left out", stacklevel=2)
        found, counts = found[counts > 1], counts[counts > 1]
        weights = (source.weight * counts**exponent / (counts**exponent).sum()).tolist()
        parts += [
            replace(
                source, name=f"{source.name} ({name})", rows=source.rows[language_of[source.rows] == name], weight=w
            )
            for name, w in zip(found, weights, strict=True)
        ]
    return parts
