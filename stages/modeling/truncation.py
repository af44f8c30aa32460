"""How much of its texts a model sees: the share that is cut, and texts read in windows instead.

Shapes: N texts, D embedding dimension.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

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
    return [len(ids) for ids in encoder.tokenize(texts, side, _UNCUT)]


def windows(encoder: Encoder, text: str, side: str, max_tokens: int, window_tokens: int) -> list[str]:
    """The consecutive parts of a text that an encoder reads `window_tokens` at a time: its first `max_tokens` tokens.

    Every part is a text of its own behind its side's prompt, which takes its room. A text that fits into a window is
    its only part.

    Raises:
        ValueError: there is no room in a window beside the prompt.
    """
    room = window_tokens - len(encoder.tokenize([""], side)[0])
    if room < 1:
        raise ValueError(f"window_tokens is {window_tokens}, and the prompt of {side} alone fills that; raise it")
    spans = _spans(encoder, text)[:max_tokens]
    if len(spans) <= room:
        return [text]
    ends = [spans[min(start + room, len(spans)) - 1][1] for start in range(0, len(spans), room)]
    return [text[start:end] for start, end in itertools.pairwise([0, *ends])]


def encode_windows(
    encoder: Encoder, texts: Sequence[str], side: str, max_tokens: int, window_tokens: int, batch_tokens: int
) -> np.ndarray:
    """Unit embeddings [N, D] float32 of texts, each the mean of its windows' embeddings weighted by their tokens."""
    if window_tokens >= max_tokens:
        parts, owners = list(texts), list(range(len(texts)))
    else:
        pieces = [windows(encoder, text, side, max_tokens, window_tokens) for text in texts]
        parts = [part for of_text in pieces for part in of_text]
        owners = [row for row, of_text in enumerate(pieces) for _ in of_text]
    token_ids = encoder.tokenize(parts, side, min(max_tokens, window_tokens))
    sums = np.zeros((len(texts), encoder.dimensions), dtype=np.float32)
    for rows, vectors in encoder.encode_batches(token_ids, batch_tokens):
        weights = np.array([[len(token_ids[row])] for row in rows], dtype=np.float32)
        np.add.at(sums, [owners[row] for row in rows], vectors * weights)
    return sums / np.linalg.norm(sums, axis=1, keepdims=True)


def prefix(encoder: Encoder, text: str, tokens: int) -> str:
    """The beginning of a text that is so many tokens long; all of a shorter one."""
    spans = _spans(encoder, text)
    return text if len(spans) <= tokens else text[: spans[tokens - 1][1]]


def _spans(encoder: Encoder, text: str) -> list[tuple[int, int]]:
    """Where each token of a text begins and ends in it, without the tokens that a tokenizer puts around a text."""
    encoded = encoder.tokenizer(
        text, add_special_tokens=False, return_offsets_mapping=True, truncation=True, max_length=_UNCUT
    )
    spans: list[tuple[int, int]] = encoded["offset_mapping"]
    return spans
