"""Token counts of a recipe's texts, thinned out evenly where there are very many.

Shapes: N rows.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from stages.planning.texts import SourceTexts, TokenCounts

# Rows of training texts to draw steps from.
SAMPLED_ROWS = 200_000
# As stages.training.dev: rows of a source that dev metrics read.
DEV_ROWS = 200


class Corpus:
    """The texts of a plan and how many tokens each has under a model."""

    def __init__(self, sources: Mapping[str, SourceTexts], counts: TokenCounts) -> None:
        self.sources = sources
        self.counts = counts
        rows = sum(one.rows("train") for one in sources.values())
        self._share = min(1.0, SAMPLED_ROWS / rows) if rows else 1.0

    def lengths(self, model: str, source: str, column: str, prompt: str, max_tokens: int) -> np.ndarray:
        """Tokens [N] of a column of a source's training rows, in proportion to the rows that the source has."""
        one = self.sources[source]
        lengths = self._of_split(model, source, column, "train", prompt, max_tokens)
        wanted = one.scale * self._share
        if wanted == 1 or len(lengths) == 0:
            return lengths
        # The same rows for every column, so that pairs stay pairs.
        chosen = np.random.default_rng(0).choice(len(lengths), max(1, round(wanted * len(lengths))))
        return lengths[chosen]

    def dev_lengths(
        self, model: str, sources: Sequence[str], prompts: Mapping[str, str], max_tokens: int
    ) -> list[np.ndarray]:
        """Tokens of each column that dev metrics embed; `prompts` by column."""
        return [
            self._of_split(model, source, column, "dev", prompt, max_tokens)[:DEV_ROWS]
            for source in sources
            for column, prompt in prompts.items()
        ]

    def _of_split(self, model: str, source: str, column: str, split: str, prompt: str, max_tokens: int) -> np.ndarray:
        one = self.sources[source]
        return self.counts.lengths(model, one.columns[column][split], one.tokens, prompt, max_tokens)
