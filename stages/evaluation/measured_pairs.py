"""The pairs that retrieval is measured on, and its figures by who asked the questions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages.corpus.tables import read_split, read_table
from stages.metrics.row_outcomes import RowOutcomes
from stages.recipe.paths import INCONSISTENT_PAIRS


def measured_pairs(curated: Path, source: str) -> pa.Table:
    """Read a source's test pairs, without questions of a model that mine found inconsistent.

    Raises:
        ValueError: there are none, or none that mine found consistent.
    """
    rows = read_split(curated, "pairs", "test", [source])
    left_out = read_table(INCONSISTENT_PAIRS, [source])["id"] if INCONSISTENT_PAIRS.exists() else pa.array([], "string")
    measured = rows.filter(pc.invert(pc.is_in(rows["id"], pa.array(left_out.to_pylist(), "string"))))
    if not len(measured):
        raise ValueError(
            f"{source}: mine left out all of its {len(rows)} test questions, which a model wrote; read "
            "data/mined/audit.html, and raise mine.consistency or correct the model's prompt"
        )
    return measured


def figures_by_origin(outcomes: Mapping[str, Mapping[str, RowOutcomes]], curated: Path) -> dict[str, dict[str, Any]]:
    """Average nDCG@10 over the questions of each origin (column `origin` of pairs).

    Args:
        outcomes: of retrieval, by model and source.

    Returns:
        By source and origin: `queries`, their number, and the figure of each model.
    """
    found: dict[str, dict[str, Any]] = {}
    for source in next(iter(outcomes.values()), {}):
        origins = np.asarray(measured_pairs(curated, source)["origin"].to_pylist())
        for origin in np.unique(origins).tolist():
            rows = origins == origin
            counts = rows[None].astype(float)  # the rows of this origin once each, and no other
            figures = {model: float(by_source[source].on(counts)[0]) for model, by_source in outcomes.items()}
            found.setdefault(source, {})[origin] = {"queries": int(rows.sum()), **figures}
    return found
