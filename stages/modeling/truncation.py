"""Texts that are longer than a model reads: the share that is cut off, and texts that are read in windows instead.

Shapes: N texts, D embedding dimension.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from stages.modeling.encoder import Encoder

# Longer than any text, and shorter than the number that a tokenizer takes for an overflow.
_UNCUT = 2**31 - 1


def check_truncation(
    encoder: Encoder, texts: Mapping[str, Sequence[str]], max_tokens: int, max_share: float, name: str
) -> None:
    """Stop a phase that would silently lose the end of too many texts.

    Args:
        texts: texts of each side, which are counted behind the side's prompt.
        name: phase and source, for the message.

    Raises:
        ValueError: more than `max_share` of all the texts are cut at `max_tokens`.
    """
    lengths = [length for side, of_side in texts.items() for length in token_counts(encoder, of_side, side)]
    refuse_truncation(lengths, max_tokens, max_share, name)


def refuse_truncation(lengths: Sequence[int], max_tokens: int, max_share: float, name: str) -> None:
    """Check texts whose lengths in tokens are known; raises like `check_truncation`."""
    share = truncated_share(lengths, max_tokens)
    if share > max_share:
        raise ValueError(
            f"{name}: {share:.1%} of {len(lengths)} texts are cut at max_tokens {max_tokens}, max_truncated_share is "
            f"{max_share:.1%}; raise max_tokens (90% of the texts fit into {np.quantile(lengths, 0.9):.0f}), "
            "lower the words of the sources, or raise max_truncated_share"
        )


def truncated_share(lengths: Sequence[int], max_tokens: int) -> float:
    """Return the share of texts that are longer than `max_tokens`; 0 if there are no texts."""
    return sum(length > max_tokens for length in lengths) / max(1, len(lengths))


def token_counts(encoder: Encoder, texts: Sequence[str], side: str) -> list[int]:
    """Count the tokens of each whole text behind its side's prompt."""
    counts: list[int] = encoder.tokenize(texts, side, _UNCUT).lengths.tolist()
    return counts


def whole_lengths(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """Count the tokens of each whole text, with those that the tokenizer adds; none for no texts, which it refuses."""
    if not texts:
        return []
    return [len(ids) for ids in tokenizer(list(texts), truncation=True, max_length=_UNCUT)["input_ids"]]


def windows(
    encoder: Encoder, texts: Sequence[str], side: str, max_tokens: int, window_tokens: int
) -> tuple[list[str], list[int]]:
    """Split texts into the windows that an encoder reads; arguments and result are those of `split_into_windows`."""
    added_tokens = len(encoder.tokenize([""], side)[0])
    return split_into_windows(encoder.tokenizer, texts, max_tokens, window_tokens, added_tokens)


def split_into_windows(
    tokenizer: Any, texts: Sequence[str], max_tokens: int, window_tokens: int, added_tokens: int
) -> tuple[list[str], list[int]]:
    """Split the first `max_tokens` tokens of texts into consecutive windows.

    A window is a text of its own behind its side's prompt. A text that fits into a window is its only window.

    Args:
        added_tokens: tokens of the prompt and of what the tokenizer adds, in every window of `window_tokens`.

    Returns:
        All windows, and the row of the text of each.

    Raises:
        ValueError: there is no room in a window beside the prompt.
    """
    if window_tokens >= max_tokens:
        return list(texts), list(range(len(texts)))
    room = window_tokens - added_tokens
    if room < 1:
        raise ValueError(f"window_tokens is {window_tokens}, and the prompt alone fills that; raise it")
    parts, rows = [], []
    for row, text in enumerate(texts):
        spans = _token_spans(tokenizer, text)[:max_tokens]
        ends = [spans[min(start + room, len(spans)) - 1][1] for start in range(0, len(spans), room)]
        # A text that fits stays whole, with the characters behind its last token.
        of_text = [text] if len(spans) <= room else [text[a:b] for a, b in itertools.pairwise([0, *ends])]
        parts += of_text
        rows += [row] * len(of_text)
    return parts, rows


def encode_windows(
    encoder: Encoder, texts: Sequence[str], side: str, max_tokens: int, window_tokens: int, batch_tokens: int
) -> np.ndarray:
    """Embed texts as unit vectors [N, D] float32: the means of their windows' vectors, weighted by tokens."""
    parts, rows = windows(encoder, texts, side, max_tokens, window_tokens)
    tokens = encoder.tokenize(parts, side, min(max_tokens, window_tokens))
    batches = list(encoder.encode_batches(tokens, batch_tokens))
    embedded = [part for numbers, _ in batches for part in numbers]  # in the order of batches, as they are summed
    vectors = np.concatenate([of_batch for _, of_batch in batches])
    return average_windows(vectors, tokens.lengths[embedded], [rows[part] for part in embedded], len(texts))


def first_tokens(encoder: Encoder, text: str, number: int) -> str:
    """Return the beginning of a text that is `number` tokens long, or the whole of a shorter text."""
    spans = _token_spans(encoder.tokenizer, text)
    return text if len(spans) <= number else text[: spans[number - 1][1]]


def average_windows(vectors: np.ndarray, weights: ArrayLike, rows: Sequence[int], num_texts: int) -> np.ndarray:
    """Return the unit vectors [N, D] of texts from vectors, weights and text rows of their windows."""
    sums = np.zeros((num_texts, vectors.shape[1]), dtype=np.float32)
    np.add.at(sums, list(rows), vectors * np.asarray(weights, dtype=np.float32)[:, None])
    return sums / np.linalg.norm(sums, axis=1, keepdims=True)


def _token_spans(tokenizer: Any, text: str) -> list[tuple[int, int]]:
    """Return where each token begins and ends in a text, without the tokens that the tokenizer adds."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, truncation=True, max_length=_UNCUT)
    spans: list[tuple[int, int]] = encoded["offset_mapping"]
    return spans
