"""The texts of a recipe's sources and their lengths in tokens: curated rows, or rows of which only the size is given.

Shapes: N rows at hand, which stand for all rows of a source; M texts of a row.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from ruamel.yaml import YAML

from stages.corpus.tables import SPLITS, read_table
from stages.modeling.truncation import whole_lengths
from stages.recipe.curate import Curate
from stages.recipe.fields import TEXT_FIELDS, Kind
from stages.recipe.paths import CURATED, RECIPE
from stages.training.dev import MAX_ROWS
from stages.training.stage1_texts import READ_AS

DVC_LOCK = Path("dvc.lock")
# A larger source is known by this many of its rows, and so are several sources that are read together.
SAMPLED_ROWS = 20_000


@dataclass(frozen=True)
class SourceTexts:
    """A source's number of rows in each split, texts [N] by column, and the tokens of each text where that is given."""

    kind: Kind
    rows: Mapping[str, int]
    texts: Mapping[str, Sequence[str]]
    tokens: int | None = None


def read_sources(
    curate: Curate, seed: int, given_rows: Mapping[str, int], tokens_per_text: int | None
) -> dict[str, SourceTexts]:
    """Read each source's curated rows, or take its size as given.

    Args:
        given_rows: sizes of sources that are not read. The size of any other source that is not curated is its
            `max_rows`. Each of their texts has `tokens_per_text` tokens.

    Raises:
        ValueError: a source is neither curated nor of given size, or a size belongs to no source.
    """
    if unknown := sorted(given_rows.keys() - {source.name for source in curate.sources}):
        raise ValueError(f"--rows: got {unknown}, expected sources of the recipe")
    curated, found = _curated_sources(seed), {}
    for source in curate.sources:
        columns, name = TEXT_FIELDS[source.kind], source.name
        if name not in given_rows and source.model_dump(mode="json", exclude_unset=True) in curated:
            tables = [read_table(CURATED / source.kind / f"{split}.parquet", [name]) for split in SPLITS]
            texts = {column: [text for table in tables for text in table[column].to_pylist()] for column in columns}
            if source.kind == "pairs":  # explicit negatives are used in training alone
                texts["negatives"] = pc.list_flatten(tables[0]["negatives"]).to_pylist()
            every = 1 + sum(map(len, tables)) // SAMPLED_ROWS
            rows = dict(zip(SPLITS, map(len, tables), strict=True))
            found[name] = SourceTexts(
                source.kind, rows, {column: of_column[::every] for column, of_column in texts.items()}
            )
            continue
        size = given_rows.get(name, source.max_rows)
        if size is None or tokens_per_text is None:
            raise ValueError(
                f"source {name} is not curated; run `dvc repro curate`, or give its size: "
                f"--rows {name}=N --tokens-per-text N"
            )
        dev, test = round(source.splits.dev * size), round(source.splits.test * size)
        names = {column: [f"{name} {column} {row}" for row in range(min(size, SAMPLED_ROWS))] for column in columns}
        found[name] = SourceTexts(
            source.kind, {"train": size - dev - test, "dev": dev, "test": test}, names, tokens_per_text
        )
    return found


def _curated_sources(seed: int) -> list[dict[str, Any]]:
    """Return the sections of the sources that data/curated holds; none if curate has not run with this seed."""
    if not CURATED.exists() or not DVC_LOCK.exists():
        return []
    stages = YAML(typ="safe").load(DVC_LOCK.read_text(encoding="utf-8")).get("stages", {})
    locked = stages.get("curate", {}).get("params", {}).get(str(RECIPE), {})
    sources: list[dict[str, Any]] = locked["curate"]["sources"] if locked.get("seed") == seed else []
    return sources


class TextLengths:
    """Lengths of the sources' texts in tokens of one model, behind its prompts (by side)."""

    def __init__(
        self, sources: Mapping[str, SourceTexts], tokenizer: Callable[[], Any], prompts: Mapping[str, str]
    ) -> None:
        self.sources, self.prompts, self._tokenizer = sources, prompts, tokenizer
        self._counted: dict[tuple[str, str, str], np.ndarray] = {}

    def whole(self, source: str, column: str, side: str) -> np.ndarray:
        """Count the tokens [N] of a column's whole texts, read as a side."""
        texts, key = self.sources[source], (source, column, self.prompts[side])
        if texts.tokens is not None:
            return np.full(len(texts.texts[column]), texts.tokens)
        if key not in self._counted:
            prompted = [self.prompts[side] + text for text in texts.texts[column]]
            self._counted[key] = np.array(whole_lengths(self._tokenizer(), prompted), dtype=np.int64)
        return self._counted[key]

    def around(self, side: str) -> int:
        """Count the tokens that every window of a long text has: the prompt's, and those that end a text."""
        return whole_lengths(self._tokenizer(), [self.prompts[side]])[0]

    def train(self, sources: Sequence[str], sides: Mapping[str, str], max_tokens: int) -> np.ndarray:
        """Return the tokens [N, M] of training rows, drawn from the sources in proportion to their rows.

        Args:
            sides: the side that each of the M columns is read as.
        """
        return np.concatenate(self._drawn({name: list(sides.items()) for name in sources}, max_tokens))

    def stage1(self, sources: Sequence[str], max_tokens: int) -> list[np.ndarray]:
        """Return the tokens [N, M] of training rows of each source, with the M texts that stage 1 reads of a row."""
        readings = {name: READ_AS[self.sources[name].kind] for name in sources}
        sides = {name: [(one.column, one.side) for one in of_kind] for name, of_kind in readings.items()}
        return self._drawn(sides, max_tokens)

    def single_documents(self, sources: Sequence[str], max_tokens: int) -> np.ndarray:
        """Return the tokens [N, 1] of all texts of training rows, each read as a document."""
        sides = {name: [(column, "document") for column in TEXT_FIELDS[self.sources[name].kind]] for name in sources}
        return np.concatenate([rows.reshape(-1, 1) for rows in self._drawn(sides, max_tokens)])

    def _drawn(self, columns: Mapping[str, Sequence[tuple[str, str]]], max_tokens: int) -> list[np.ndarray]:
        counts = {name: self.sources[name].rows["train"] for name in columns}
        generator, drawn = np.random.default_rng(0), []
        for name, count in counts.items():
            rows = np.stack([self.whole(name, column, side) for column, side in columns[name]], axis=1)
            chosen = generator.choice(len(rows), round(SAMPLED_ROWS * count / sum(counts.values())))
            drawn.append(np.minimum(rows[chosen], max_tokens))
        return drawn

    def dev(self, sources: Sequence[str], sides: Mapping[str, str], max_tokens: int) -> np.ndarray:
        """Return the tokens of all texts that an evaluation on the dev split embeds, of sources with these columns."""
        read = [
            self.whole(name, column, side)[: min(MAX_ROWS, self.sources[name].rows["dev"])]
            for name in sources
            for column, side in sides.items()
            if column in self.sources[name].texts
        ]
        return np.minimum(np.concatenate(read), max_tokens) if read else np.empty(0, dtype=np.int64)
