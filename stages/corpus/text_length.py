"""How long a text is: in words, or in a tokenizer's tokens. Where a script puts no spaces, a letter counts as a word.

Shapes: N texts.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# Thai and Lao, Myanmar, Khmer, kana, Han. Korean puts spaces.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_LETTER = re.compile(f"[{UNSPACED}]")
_WITH_LETTER = re.compile(r"\S*\w\S*")


def count_words(text: str) -> int:
    """Words between spaces, and letters of scripts without them."""
    if text.isascii() or not _LETTER.search(text):
        return len(text.split())
    spaced, letters = _LETTER.subn(" ", text)
    return letters + len(_WITH_LETTER.findall(spaced))


def word_counts(texts: pa.ChunkedArray) -> np.ndarray:
    """`count_words` of a column of texts [N] int64."""
    counts: np.ndarray = pc.list_value_length(pc.utf8_split_whitespace(texts)).to_numpy().astype(np.int64)
    for row in np.flatnonzero(pc.match_substring_regex(texts, f"[{UNSPACED}]").to_numpy()).tolist():
        counts[row] = count_words(texts[row].as_py())
    return counts


@dataclass(frozen=True)
class Measure:
    """What a source's limits are counted in, and how texts [N] are counted."""

    unit: str
    count: Callable[[Sequence[str]], Sequence[int]]


WORDS = Measure("words", lambda texts: [count_words(text) for text in texts])


def tokens_of(folder: Path) -> Measure:
    """Tokens of a model folder's tokenizer, a batch of texts at a time; without those that it puts around a text.

    Raises:
        FileNotFoundError: the folder has no tokenizer.json.
    """
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    if not file.exists():
        raise FileNotFoundError(f"{file}: limits in tokens need a fast tokenizer there; give limits in words instead")
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def count(texts: Sequence[str]) -> list[int]:
        # Lone surrogates, whose rows cleaning rejects, as question marks: a tokenizer takes none.
        known = [text if text.isascii() else text.encode(errors="replace").decode() for text in texts]
        return [len(one) for one in tokenizer.encode_batch_fast(known, add_special_tokens=False)]

    return Measure("tokens", count)
