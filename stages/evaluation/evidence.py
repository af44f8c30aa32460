"""The evidence of an evaluation, kept so that a later release can be compared with it: row outcomes and vectors.

A folder of `rows.safetensors` (arrays named task/source/model/array), `units.safetensors` (task/source),
`vectors.safetensors` (source/side) and `tests.json` with digests of the test sets: equal digests mean equal rows in
equal order.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from safetensors.numpy import load_file, save_file

from stages.corpus.tables import read_split
from stages.evaluation.measured_pairs import measured_pairs
from stages.metrics.row_outcomes import Mean, Partition, RankCorrelation, RowOutcomes

ROWS, UNITS, VECTORS, TESTS = "rows.safetensors", "units.safetensors", "vectors.safetensors", "tests.json"
KINDS: tuple[type[Mean] | type[RankCorrelation] | type[Partition], ...] = (Mean, RankCorrelation, Partition)
# Rows, columns and splits that determine a task's figures beside the model.
SCORED = {
    "retrieval": ("pairs", ("query", "document"), ("test",)),
    "unseen": ("pairs", ("query", "document"), ("test",)),
    "text-matching": ("scored", ("text_a", "text_b", "score"), ("test",)),
    "clustering": ("labelled", ("text", "label"), ("test",)),
    "classification": ("labelled", ("text", "label"), ("dev", "test")),
}


@dataclass(frozen=True)
class Evidence:
    """What an evaluation leaves behind.

    Args:
        outcomes: outcomes of the test rows, by task, model and source.
        vectors: vectors of the retrieval adapter, by source and side.
        tests: digests of the test sets, by task and source.
        units: units of the test rows (see `units_of_tests`), by task and source.
    """

    outcomes: Mapping[str, Mapping[str, Mapping[str, RowOutcomes]]]
    vectors: Mapping[str, Mapping[str, np.ndarray]]
    tests: Mapping[str, Mapping[str, str]]
    units: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write the folder; vectors become float16, which moves a cosine by less than 0.001."""
        folder.mkdir(parents=True, exist_ok=True)
        rows = {
            f"{task}/{source}/{model}/{name}": np.ascontiguousarray(array)
            for task, by_model in self.outcomes.items()
            for model, by_source in by_model.items()
            for source, outcomes in by_source.items()
            for name, array in vars(outcomes).items()
        }
        save_file(rows, folder / ROWS)
        save_file({f"{a}/{b}": array for a, inner in self.units.items() for b, array in inner.items()}, folder / UNITS)
        halves = {
            f"{source}/{side}": array.astype(np.float16)
            for source, by_side in self.vectors.items()
            for side, array in by_side.items()
        }
        save_file(halves, folder / VECTORS)
        (folder / TESTS).write_text(json.dumps(self.tests, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_evidence(folder: Path) -> Evidence:
    """Read what `Evidence.save` wrote.

    Raises:
        FileNotFoundError: the folder holds no evidence, as that of an old release.
    """
    outcomes: dict[str, dict[str, dict[str, RowOutcomes]]] = {}
    for task, by_source in _nested(load_file(folder / ROWS)).items():
        for source, by_model in by_source.items():
            for model, arrays in by_model.items():
                outcomes.setdefault(task, {}).setdefault(model, {})[source] = _outcomes(arrays)
    tests = json.loads((folder / TESTS).read_text(encoding="utf-8"))
    return Evidence(outcomes, _nested(load_file(folder / VECTORS)), tests, _nested(load_file(folder / UNITS)))


def _nested(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Arrays named `a/b/c` as dictionaries in dictionaries."""
    tree: dict[str, Any] = {}
    for key, array in arrays.items():
        *folders, name = key.split("/")
        inner = tree
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[name] = array
    return tree


def _outcomes(arrays: Mapping[str, np.ndarray]) -> RowOutcomes:
    """Outcomes of the kind whose fields these arrays are."""
    (kind,) = (kind for kind in KINDS if {field.name for field in fields(kind)} == set(arrays))
    return kind(**arrays)


def digests_of_tests(curated: Path, sources: Mapping[str, Sequence[str]], seed: int) -> dict[str, dict[str, str]]:
    """Compute by task and source a SHA-256 over the texts, labels and scores of a test set in their order.

    Args:
        sources: names by task.
        seed: seed of k-means, which determines clustering's figures too.
    """
    digests: dict[str, dict[str, str]] = {}
    for task, names in sources.items():
        kind, columns, splits = SCORED[task]
        for source in names:
            total = hashlib.sha256(str(seed).encode() if task == "clustering" else b"")
            for split in splits:
                rows = _rows(curated, kind, split, source).select(columns)
                total.update(json.dumps(rows.to_pydict(), ensure_ascii=False).encode())
            digests.setdefault(task, {})[source] = total.hexdigest()
    return digests


def units_of_tests(curated: Path, sources: Mapping[str, Sequence[str]]) -> dict[str, dict[str, np.ndarray]]:
    """Number the units by which a bootstrap draws test rows, by task and source.

    Returns:
        The entity of each row [n]. Where all rows have the same entity, each row is its own unit; scored pairs whose
        texts recur have both their texts as units [n, 2].
    """
    return {
        task: {source: _units(curated, SCORED[task][0], source) for source in names} for task, names in sources.items()
    }


def _rows(curated: Path, kind: str, split: str, source: str) -> pa.Table:
    return measured_pairs(curated, source) if kind == "pairs" else read_split(curated, kind, split, [source])


def _units(curated: Path, kind: str, source: str) -> np.ndarray:
    rows = _rows(curated, kind, "test", source)
    names, units = np.unique(rows["entity"].to_pylist(), return_inverse=True)
    if len(names) > 1:
        return np.asarray(units)
    if kind == "scored":
        texts, sides = np.unique(rows["text_a"].to_pylist() + rows["text_b"].to_pylist(), return_inverse=True)
        if len(texts) < len(sides):
            return np.ascontiguousarray(sides.reshape(2, -1).T)
    return np.arange(len(rows))
