"""How much of its texts a model sees: the share that is cut, and texts read in windows instead.

Shapes: N texts, D embedding dimension.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from stages.modeling.encoder import Encoder

# Longer than any text, shorter than what a tokenizer takes for an overflow.
_UNCUT = 2**31 - 1


def check_truncation(
    encoder: Encoder, texts: Mapping[str, Sequence[str]], max_tokens: int, max_share: float, name: str
) -> None:
    """Stop a phase that would silently lose the end of too many texts.

    Args:
        texts: by side, whose prompt counts.
        name: of the phase and its source, for the message.

    Raises:
        ValueError: more than `max_share` of all the texts are cut at `max_tokens`.
    """
    lengths = [length for side, of_side in texts.items() for length in token_counts(encoder, of_side, side)]
    refuse_truncation(lengths, max_tokens, max_share, name)


def refuse_truncation(lengths: Sequence[int], max_tokens: int, max_share: float, name: str) -> None:
    """The same check of texts whose lengths in tokens are known; raises like `check_truncation`."""
    share = truncated_share(lengths, max_tokens)
    if share > max_share:
        raise ValueError(
            f"{name}: {share:.1%} of {len(lengths)} texts are cut at max_tokens {max_tokens}, max_truncated_share is "
            f"{max_share:.1%}; raise max_tokens (90% of the texts fit into {np.quantile(lengths, 0.9):.0f}), "
            "lower the words of the sources, or raise max_truncated_share"
        )


def truncated_share(lengths: Sequence[int], max_tokens: int) -> float:
    """Share of texts longer than `max_tokens`; 0 of none."""
    return sum(length > max_tokens for length in lengths) / max(1, len(lengths))


def token_counts(encoder: Encoder, texts: Sequence[str], side: str) -> list[int]:
    """Tokens of each whole text behind its side's prompt."""
    counts: list[int] = encoder.tokenize(texts, side, _UNCUT).lengths.tolist()
    return counts


def whole_lengths(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """Tokens of each whole text as it stands, with those that the tokenizer puts around it."""
    return [len(ids) for ids in tokenizer(list(texts), truncation=True, max_length=_UNCUT)["input_ids"]]


def windows(
    encoder: Encoder, texts: Sequence[str], side: str, max_tokens: int, window_tokens: int
) -> tuple[list[str], list[int]]:
    """The consecutive parts of texts that an encoder reads `window_tokens` at a time: their first `max_tokens` tokens.

    Every part is a text of its own behind its side's prompt, which takes its room. A text that fits into a window is
    its only part.

    Returns:
        All parts, and the row of each part's text.

    Raises:
        ValueError: there is no room in a window beside the prompt.
    """
    around = len(encoder.tokenize([""], side)[0])
    return parts_of(encoder.tokenizer, texts, max_tokens, window_tokens, around)


def parts_of(
    tokenizer: Any, texts: Sequence[str], max_tokens: int, window_tokens: int, around: int
) -> tuple[list[str], list[int]]:
    """All parts of texts as `windows` cuts them, and the row of each part's text.

    Args:
        around: tokens of the prompt and of what the tokenizer adds, in every window.
    """
    if window_tokens >= max_tokens:
        return list(texts), list(range(len(texts)))
    room = window_tokens - around
    if room < 1:
        raise ValueError(f"window_tokens is {window_tokens}, and the prompt alone fills that; raise it")
    parts, owners = [], []
    for row, text in enumerate(texts):
        spans = _spans(tokenizer, text)[:max_tokens]
        ends = [spans[min(start + room, len(spans)) - 1][1] for start in range(0, len(spans), room)]
        # A text that fits stays as it is, with what its last token leaves out.
        of_text = [text] if len(spans) <= room else [text[a:b] for a, b in itertools.pairwise([0, *ends])]
        parts += of_text
        owners += [row] * len(of_text)
    return parts, owners


def encode_windows(
    encoder: Encoder, texts: Sequence[str], side: str, max_tokens: int, window_tokens: int, batch_tokens: int
) -> np.ndarray:
    """Unit embeddings [N, D] float32 of texts, each the mean of its windows' embeddings weighted by their tokens."""
    parts, owners = windows(encoder, texts, side, max_tokens, window_tokens)
    tokens = encoder.tokenize(parts, side, min(max_tokens, window_tokens))
    batches = list(encoder.encode_batches(tokens, batch_tokens))
    read = [row for rows, _ in batches for row in rows]  # in the order of batches, and so are they summed
    vectors = np.concatenate([part for _, part in batches])
    return means(vectors, tokens.lengths[read], [owners[row] for row in read], len(texts))


def prefix(encoder: Encoder, text: str, tokens: int) -> str:
    """The beginning of a text that is so many tokens long; all of a shorter one."""
    spans = _spans(encoder.tokenizer, text)
    return text if len(spans) <= tokens else text[: spans[tokens - 1][1]]


def means(vectors: np.ndarray, weights: ArrayLike, owners: Sequence[int], num_texts: int) -> np.ndarray:
    """Unit vectors [N, D] of texts from their parts' vectors and weights."""
    sums = np.zeros((num_texts, vectors.shape[1]), dtype=np.float32)
    np.add.at(sums, list(owners), vectors * np.asarray(weights, dtype=np.float32)[:, None])
    return sums / np.linalg.norm(sums, axis=1, keepdims=True)


def _spans(tokenizer: Any, text: str) -> list[tuple[int, int]]:
    """Where each token of a text begins and ends in it, without the tokens that a tokenizer puts around a text."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, truncation=True, max_length=_UNCUT)
    spans: list[tuple[int, int]] = encoded["offset_mapping"]
    return spans
