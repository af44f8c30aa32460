"""The texts that a plan counts: curated rows, rows read and cleaned now, or numbers given instead.

Shapes: N texts.
"""

import itertools
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.corpus.cleaning import Limits
from stages.corpus.quarantine import Quarantine
from stages.corpus.readers.unreadable import Unreadable
from stages.corpus.source_ingest import KEPT, Reasons, SourceToRead, take_in
from stages.corpus.tables import SPLITS, read_table

# Records of a source to read; a larger source is known by its first ones.
READ = 50_000
# Longer than any text, shorter than what a tokenizer takes for an overflow.
UNCUT = 2**31 - 1
# Rows that stand for all of a source of given size.
STAND_INS = 20_000


@dataclass(frozen=True)
class SourceTexts:
    """Texts of a source by column and split; `scale` rows of the source stand behind each row here."""

    counted: str  # how, in words
    columns: Mapping[str, Mapping[str, Sequence[str]]]
    scale: float
    tokens: int | None = None  # of every text, where they were given instead of read

    def rows(self, split: str) -> int:
        """Rows of the source in a split."""
        return round(self.scale * len(next(iter(self.columns.values()))[split]))


def curated_texts(folder: Path, source: str, kind: str, columns: Sequence[str]) -> SourceTexts:
    """All rows of a source that the curate stage left."""
    tables = {split: read_table(folder / kind / f"{split}.parquet", [source]) for split in SPLITS}
    texts = {column: {split: tables[split][column].to_pylist() for split in SPLITS} for column in columns}
    return SourceTexts("data/curated", texts, scale=1.0)


def cleaned_texts(
    records: Iterable[dict[str, Any] | Unreadable],
    origin: Mapping[str, str],
    limits: Limits,
    columns: Sequence[str],
) -> SourceTexts:
    """Rows of a source as curate takes them in, of its first records where there are many.

    What curate rejects later is few rows: near duplicates, test rows in train. The language is not looked at.

    Raises:
        ValueError: there are more records than are read here, and no `max_rows` says how many rows are wanted.
    """
    stream = iter(records)
    texts = _taken_in(itertools.islice(stream, READ), origin, limits, columns)
    if next(stream, None) is None:
        return SourceTexts("read and cleaned now", texts, scale=1.0)
    kept = sum(map(len, texts[columns[0]].values()))
    if limits.max_rows is None:
        name = origin["source"]
        raise ValueError(
            f"source {name} has over {READ} records and no max_rows, so its size is unknown; give it: --rows {name}=N"
        )
    counted = f"max_rows, lengths from the {kept} rows of its first {READ} records"
    return SourceTexts(counted, texts, scale=limits.max_rows / kept)


def _taken_in(
    records: Iterable[dict[str, Any] | Unreadable],
    origin: Mapping[str, str],
    limits: Limits,
    columns: Sequence[str],
) -> dict[str, dict[str, list[str]]]:
    texts: dict[str, dict[str, list[str]]] = {column: {split: [] for split in SPLITS} for column in columns}
    with tempfile.TemporaryDirectory() as folder:
        quarantine = Quarantine(Path(folder) / "rejected.parquet")
        source = SourceToRead(origin, limits, lambda: records)
        intake = take_in(source, None, Path(folder), quarantine, Reasons())
        quarantine.close()
        for where, table in intake.batches(columns):
            for number, split in enumerate(SPLITS):
                chosen = table.filter((intake.fates[where] == KEPT) & (intake.splits[where] == number))
                for column in columns:
                    texts[column][split] += chosen[column].to_pylist()
    return texts


def given_texts(source: str, rows: int, tokens: int, dev: float, test: float, columns: Sequence[str]) -> SourceTexts:
    """A source of so many rows whose every text has so many tokens."""
    here = min(rows, STAND_INS)
    sizes = {"dev": round(dev * here), "test": round(test * here)}
    sizes["train"] = here - sum(sizes.values())
    # Names of texts that nobody has read: different ones, so that none counts as a repeated text.
    texts = {
        column: {split: [f"{source} {column} {split} {row}" for row in range(sizes[split])] for split in SPLITS}
        for column in columns
    }
    return SourceTexts("given", texts, rows / here, tokens)


class TokenCounts:
    """Token counts of texts under a model's tokenizer; each text is tokenised once a model.

    Args:
        tokenizer: the tokenizer of a model, which ends texts as the model's pooling needs it.
    """

    def __init__(self, tokenizer: Callable[[str], Any]) -> None:
        self._tokenizer = tokenizer
        self._known: dict[tuple[str, int], tuple[Sequence[str], np.ndarray]] = {}

    def lengths(self, model: str, texts: Sequence[str], given: int | None, prompt: str, max_tokens: int) -> np.ndarray:
        """Tokens [N] of texts behind a prompt, cut at `max_tokens`; `given` instead of counting them."""
        if given is not None:
            return np.full(len(texts), min(given, max_tokens))
        if (model, id(texts)) not in self._known:
            self._known[model, id(texts)] = texts, self._count(model, texts)
        whole = self._known[model, id(texts)][1]
        # As if no token spanned the prompt's end.
        lead, alone = self._count(model, [f"{prompt}a", "a"]) if prompt else (0, 0)
        return np.minimum(whole + (lead - alone), max_tokens)

    def _count(self, model: str, texts: Sequence[str]) -> np.ndarray:
        if not texts:
            return np.empty(0, dtype=np.int64)
        encoded = self._tokenizer(model)(list(texts), truncation=True, max_length=UNCUT, padding=False)
        return np.array([len(ids) for ids in encoded["input_ids"]])


def in_windows(lengths: np.ndarray, window_tokens: int, around: int) -> np.ndarray:
    """Tokens of the windows that texts [N] are read in: as many full ones as there are, and the rest of each.

    Args:
        around: tokens of `lengths` that every window has: the prompt's, and those put around a text.
    """
    if np.all(lengths <= window_tokens):
        return lengths
    full, rest = np.divmod(lengths - around, window_tokens - around)
    return np.concatenate([np.full(int(full.sum()), window_tokens), rest[rest > 0] + around])
