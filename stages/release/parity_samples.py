"""What every format is compared with: texts, and torch's reading of them for each task; kept in the release's parity/.

Shapes: N cases whose vectors are compared, D embedding dimension.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from stages.release.checksums import write_json
from stages.release.format_comparison import Reading
from stages.release.parity_texts import Case

FOLDER = "parity"
# Longest text of the padded batches and of a later proof: padding is padding however long, and costs as much as text.
SHORT_TOKENS = 64


@dataclass(frozen=True)
class Samples:
    """Cases, all of which are tokenised, some embedded."""

    cases: Sequence[Case]
    embedded: Sequence[int]  # which cases have a row in `Reading.alone`
    readings: Mapping[str, Reading]  # by task

    @property
    def short(self) -> list[int]:
        """Rows of `Reading.alone` that are of short texts for every task."""
        lengths = np.max([[len(ids) for ids in one.token_ids] for one in self.readings.values()], axis=0)
        return [at for at, case in enumerate(self.embedded) if lengths[case] <= SHORT_TOKENS]

    def with_vectors(self, rows: Sequence[int]) -> "Samples":
        """The same cases with these rows of vectors alone."""
        readings = {task: replace(one, alone=one.alone[list(rows)]) for task, one in self.readings.items()}
        return Samples(self.cases, [self.embedded[row] for row in rows], readings)

    def first(self, count: int) -> "Samples":
        """The first so many cases."""
        kept = self.with_vectors([row for row, case in enumerate(self.embedded) if case < count])
        readings = {task: replace(one, token_ids=one.token_ids[:count]) for task, one in kept.readings.items()}
        return Samples(kept.cases[:count], kept.embedded, readings)


def save_samples(release: Path, samples: Samples) -> None:
    """Write parity/texts.json, with token ids and settings, and parity/reference.safetensors."""
    about = {
        "cases": samples.cases,
        "embedded": samples.embedded,
        "token_ids": {task: one.token_ids for task, one in samples.readings.items()},
        "settings": {task: one.settings for task, one in samples.readings.items()},
    }
    write_json(release / FOLDER / "texts.json", about)
    vectors = {task: np.ascontiguousarray(one.alone) for task, one in samples.readings.items()}
    save_file(vectors, release / FOLDER / "reference.safetensors")


def load_samples(release: Path) -> Samples:
    """Read what `save_samples` wrote."""
    about = json.loads((release / FOLDER / "texts.json").read_text(encoding="utf-8"))
    vectors = load_file(release / FOLDER / "reference.safetensors")
    readings = {
        task: Reading(ids, vectors[task], settings=about["settings"][task]) for task, ids in about["token_ids"].items()
    }
    return Samples([Case(*case) for case in about["cases"]], about["embedded"], readings)
