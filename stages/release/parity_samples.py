"""Cases on which every format is compared with torch, and torch's output for them; stored in the release's parity/.

Shapes: N cases that are embedded, D embedding dimension.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from stages.release.checksums import write_json
from stages.release.format_comparison import FormatOutput
from stages.release.parity_texts import Case

FOLDER = "parity"
# Longest text, in tokens, of padded batches and of a later verification: longer texts cost more and prove no more.
SHORT_TOKENS = 64


@dataclass(frozen=True)
class Samples:
    """Cases, all of which are tokenised and some embedded, with torch's output for each task."""

    cases: Sequence[Case]
    embedded: Sequence[int]  # number of the case of each row of embeddings
    references: Mapping[str, FormatOutput]  # by task

    @property
    def short(self) -> list[int]:
        """Rows of embeddings whose texts are short for every task."""
        lengths = np.max([[len(ids) for ids in output.token_ids] for output in self.references.values()], axis=0)
        return [row for row, case in enumerate(self.embedded) if lengths[case] <= SHORT_TOKENS]

    def part(self, rows: Sequence[int], num_cases: int | None = None) -> "Samples":
        """The first `num_cases` cases (None: all of them) with only these rows of embeddings."""
        references = {
            task: replace(output, token_ids=output.token_ids[:num_cases], embeddings=output.embeddings[list(rows)])
            for task, output in self.references.items()
        }
        return Samples(self.cases[:num_cases], [self.embedded[row] for row in rows], references)

    def first_cases(self, count: int) -> "Samples":
        """The first `count` cases with their embeddings."""
        return self.part([row for row, case in enumerate(self.embedded) if case < count], count)


def save_samples(release: Path, samples: Samples) -> None:
    """Write parity/texts.json (cases, token ids, settings) and parity/reference.safetensors (embeddings)."""
    texts = {
        "cases": samples.cases,
        "embedded": samples.embedded,
        "token_ids": {task: output.token_ids for task, output in samples.references.items()},
        "settings": {task: output.settings for task, output in samples.references.items()},
    }
    write_json(release / FOLDER / "texts.json", texts)
    vectors = {task: np.ascontiguousarray(output.embeddings) for task, output in samples.references.items()}
    save_file(vectors, release / FOLDER / "reference.safetensors")


def load_samples(release: Path) -> Samples:
    """Read the samples of a release."""
    texts = json.loads((release / FOLDER / "texts.json").read_text(encoding="utf-8"))
    vectors = load_file(release / FOLDER / "reference.safetensors")
    references = {
        task: FormatOutput(ids, vectors[task], settings=texts["settings"][task])
        for task, ids in texts["token_ids"].items()
    }
    return Samples([Case(*case) for case in texts["cases"]], texts["embedded"], references)
