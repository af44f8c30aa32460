"""Length of texts in words or in a tokenizer's tokens. Where a script puts no spaces, a letter counts as a word.

Shapes: N texts.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer

# Thai and Lao, Myanmar, Khmer, kana, Han. Korean puts spaces.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
# Texts tokenized at once.
TOKENIZED_TEXTS = 512
_LETTER = re.compile(f"[{UNSPACED}]")
_WITH_LETTER = re.compile(r"\S*\w\S*")


def count_words(text: str) -> int:
    """Count the words between spaces, and the letters of scripts without spaces."""
    if text.isascii() or not _LETTER.search(text):
        return len(text.split())
    spaced, letters = _LETTER.subn(" ", text)
    return letters + len(_WITH_LETTER.findall(spaced))


def word_counts(texts: pa.ChunkedArray) -> np.ndarray:
    """Count the words of a column of texts, int64 [N], as `count_words` does."""
    counts: np.ndarray = pc.list_value_length(pc.utf8_split_whitespace(texts)).to_numpy().astype(np.int64)
    for row in np.flatnonzero(pc.match_substring_regex(texts, f"[{UNSPACED}]").to_numpy()).tolist():
        counts[row] = count_words(texts[row].as_py())
    return counts


@dataclass(frozen=True)
class Measure:
    """A unit in which lengths are counted, and the function that counts texts [N]."""

    unit: str
    count: Callable[[Sequence[str]], Sequence[int]]


WORDS = Measure("words", lambda texts: [count_words(text) for text in texts])


def tokens_of(folder: Path) -> Measure:
    """Measure texts in tokens of a model folder's tokenizer, without those that it puts around a text.

    Raises:
        FileNotFoundError: the folder has no tokenizer.json.
    """
    file = folder / "tokenizer.json"
    if not file.exists():
        raise FileNotFoundError(f"{file}: limits in tokens need a fast tokenizer there; give limits in words instead")
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def count(texts: Sequence[str]) -> list[int]:
        # A tokenizer takes no lone surrogates; cleaning rejects their rows.
        known = [text if text.isascii() else text.encode(errors="replace").decode() for text in texts]
        parts = (known[start : start + TOKENIZED_TEXTS] for start in range(0, len(known), TOKENIZED_TEXTS))
        return [len(of) for part in parts for of in tokenizer.encode_batch_fast(part, add_special_tokens=False)]

    return Measure("tokens", count)
