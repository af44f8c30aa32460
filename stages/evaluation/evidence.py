"""What an evaluation keeps so that a later release can be compared with it: outcomes of every row, and vectors.

A folder of `rows.safetensors` (arrays named task/source/contender/array), `units.safetensors` (task/source),
`vectors.safetensors` (source/side) and `tests.json`, which says by task and source what was scored: equal digests are
equal rows in equal order.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from stages.corpus.tables import read_split
from stages.metrics.row_outcomes import Mean, Partition, RankCorrelation, Sample

ROWS, UNITS, VECTORS, TESTS = "rows.safetensors", "units.safetensors", "vectors.safetensors", "tests.json"
SAMPLES: tuple[type[Mean] | type[RankCorrelation] | type[Partition], ...] = (Mean, RankCorrelation, Partition)
# What of a task's source decides its figures beside the model: kind of rows, their columns, splits.
SCORED = {
    "retrieval": ("pairs", ("query", "document"), ("test",)),
    "unseen": ("pairs", ("query", "document"), ("test",)),
    "text-matching": ("scored", ("text_a", "text_b", "score"), ("test",)),
    "clustering": ("labelled", ("text", "label"), ("test",)),
    "classification": ("labelled", ("text", "label"), ("dev", "test")),
}


@dataclass(frozen=True)
class Evidence:
    """An evaluation's outcomes by task, contender and source; vectors by source and side; digests of its test sets, and
    what their rows are drawn by (see `units_of_tests`), both by task and source.
    """

    samples: Mapping[str, Mapping[str, Mapping[str, Sample]]]
    vectors: Mapping[str, Mapping[str, np.ndarray]]
    tests: Mapping[str, Mapping[str, str]]
    units: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write the folder; vectors as float16, which moves a cosine by less than 0.001."""
        folder.mkdir(parents=True, exist_ok=True)
        rows = {
            f"{task}/{source}/{contender}/{name}": np.ascontiguousarray(array)
            for task, by_contender in self.samples.items()
            for contender, by_source in by_contender.items()
            for source, sample in by_source.items()
            for name, array in sample.arrays().items()
        }
        vectors = {
            f"{source}/{side}": array.astype(np.float16)
            for source, by_side in self.vectors.items()
            for side, array in by_side.items()
        }
        units = {
            f"{task}/{source}": rows for task, by_source in self.units.items() for source, rows in by_source.items()
        }
        save_file(rows, folder / ROWS)
        save_file(units, folder / UNITS)
        save_file(vectors, folder / VECTORS)
        (folder / TESTS).write_text(json.dumps(self.tests, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_evidence(folder: Path) -> Evidence:
    """Read what `Evidence.save` wrote.

    Raises:
        FileNotFoundError: the folder holds no evidence, as that of a release from before it was kept.
    """
    arrays: dict[tuple[str, str, str], dict[str, np.ndarray]] = {}
    for key, array in load_file(folder / ROWS).items():
        task, source, contender, name = key.split("/")
        arrays.setdefault((task, contender, source), {})[name] = array
    samples: dict[str, dict[str, dict[str, Sample]]] = {}
    for (task, contender, source), of_sample in arrays.items():
        samples.setdefault(task, {}).setdefault(contender, {})[source] = _sample(of_sample)
    vectors: dict[str, dict[str, np.ndarray]] = {}
    for key, array in load_file(folder / VECTORS).items():
        source, side = key.split("/")
        vectors.setdefault(source, {})[side] = array
    units: dict[str, dict[str, np.ndarray]] = {}
    for key, array in load_file(folder / UNITS).items():
        task, source = key.split("/")
        units.setdefault(task, {})[source] = array
    return Evidence(samples, vectors, json.loads((folder / TESTS).read_text(encoding="utf-8")), units)


def _sample(arrays: Mapping[str, np.ndarray]) -> Sample:
    """The kind of sample whose arrays these are."""
    (kind,) = (one for one in SAMPLES if set(one.__dataclass_fields__) == set(arrays))
    return kind(**arrays)


def digests_of_tests(curated: Path, sources: Mapping[str, Sequence[str]], seed: int) -> dict[str, dict[str, str]]:
    """What is scored, by task and source: a SHA-256 over the texts, labels and scores in their order.

    Args:
        sources: names by task.
        seed: of k-means, which decides clustering's figures too.
    """
    digests: dict[str, dict[str, str]] = {}
    for task, names in sources.items():
        kind, columns, splits = SCORED[task]
        for source in names:
            total = hashlib.sha256(str(seed).encode() if task == "clustering" else b"")
            for split in splits:
                rows = read_split(curated, kind, split, [source]).select(columns)
                total.update(json.dumps(rows.to_pydict(), ensure_ascii=False).encode())
            digests.setdefault(task, {})[source] = total.hexdigest()
    return digests


def units_of_tests(curated: Path, sources: Mapping[str, Sequence[str]]) -> dict[str, dict[str, np.ndarray]]:
    """What test rows are drawn by, of the named sources of each task: for `bootstrap.resample`.

    Returns:
        By task and source the entity of each row [n]. Where all have the same, each row by itself; but of scored pairs
        whose texts recur, both texts [n, 2].
    """
    return {
        task: {source: _units(curated, SCORED[task][0], source) for source in names} for task, names in sources.items()
    }


def _units(curated: Path, kind: str, source: str) -> np.ndarray:
    rows = read_split(curated, kind, "test", [source])
    names, units = np.unique(rows["entity"].to_pylist(), return_inverse=True)
    if len(names) > 1:
        return np.asarray(units)
    if kind == "scored":
        texts, sides = np.unique(rows["text_a"].to_pylist() + rows["text_b"].to_pylist(), return_inverse=True)
        if len(texts) < len(sides):
            return np.ascontiguousarray(sides.reshape(2, -1).T)
    return np.arange(len(rows))
