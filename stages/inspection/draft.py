"""The sizes of a recipe, from counted rows and tokens and the minutes that a build may take on two cores."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.inspection.splits import Shares
from stages.inspection.statistics import TableFacts

# Rows of the packaged Wikipedia that keep a student's English.
WIKIPEDIA_ROWS = 600
# Seconds on two cores: stages' starts, evaluation and release; a token that the teacher reads; a step of each phase.
START_SECONDS, TEACHER_SECONDS = 150.0, 0.0003
STEP_SECONDS = {"distill": 0.4, "retrieval": 1.5, "text-matching": 0.7, "clustering": 0.8, "classification": 1.6}
# Share of the training time that each phase has, relative to the phases of the recipe.
PHASE_SHARES = {"distill": 0.35, "retrieval": 0.4, "text-matching": 0.2, "clustering": 0.15, "classification": 0.15}
# Most passes of an adapter through the rows.
MAX_EPOCHS = 20


@dataclass(frozen=True)
class Sizes:
    """Sizes that follow from the data."""

    values: dict[str, Any]
    minutes: float
    splits: dict[str, int]
    cut: float  # share of the documents that are longer than what is read of them


def sizes(facts: TableFacts, shares: Shares, tokens: Sequence[int], tasks: Sequence[str], minutes: float) -> Sizes:
    """Choose the sizes of a recipe.

    Args:
        tokens: of the documents of a sample.
    """
    dev, test, splits = shares
    lengths = np.array(tokens) + 6  # with a prefix, and the tokens around a text
    max_tokens = int(min(128, max(64, math.ceil(float(np.quantile(lengths, 0.75)) / 32) * 32)))
    read = float(np.minimum(lengths, max_tokens).mean()) + 20
    budget = max(60.0, minutes * 60 - START_SECONDS)
    most_rows = int(max(200, budget * 0.5 / (read * TEACHER_SECONDS)))
    is_cut = facts.kept > most_rows
    rows = min(facts.kept, most_rows)
    train = max(4, int(splits["train"] * rows / facts.kept))
    left = max(30.0, budget - (rows * read + WIKIPEDIA_ROWS * 120) * TEACHER_SECONDS)
    total = sum(PHASE_SHARES[phase] for phase in ("distill", *tasks))
    batch = max(2, min(24, train // 2))
    steps = {}
    for phase in ("distill", *tasks):
        affordable = left * PHASE_SHARES[phase] / total / STEP_SECONDS[phase]
        most = 4000 if phase == "distill" else MAX_EPOCHS * train / batch
        steps[phase] = max(10, int(min(affordable, most)))
    cut = float((lengths > max_tokens).mean())
    values = {
        "dev": dev, "test": test, "max_tokens": max_tokens, "steps": steps, "batch_size": batch,
        "fixed_batch": max(2, min(32, train // 2)), "labels_batch": max(2, min(8, train // 4)),
        "max_rows": most_rows if is_cut else None,
        "num_negatives": max(1, min(4, train // 4)), "rank_window": [1, max(4, min(50, train))],
        "label_negatives": max(1, min(7, train // 4)),
        "max_truncated_share": min(1.0, max(0.9, round(cut + 0.2, 2))),
        "max_rejected_share": min(0.98, round(1 - facts.kept / max(1, facts.rows) + 0.2, 2)),
        "max_words": {role: _rounded_up(count) for role, count in facts.max_words.items()},
        "warm_start": max(8, min(1000, train + (WIKIPEDIA_ROWS if rows else 0))),
    }  # fmt: skip
    trained = sum(steps[phase] * STEP_SECONDS[phase] for phase in steps)
    reading = (rows * read + WIKIPEDIA_ROWS * 120) * TEACHER_SECONDS
    kept = {name: int(count * rows / facts.kept) for name, count in splits.items()} if is_cut else splits
    return Sizes(values, (START_SECONDS + trained + reading) / 60, kept, cut)


def _rounded_up(count: int) -> int:
    """Round up to two digits, with room for rows that come later."""
    wanted = max(8, count * 1.5)
    unit = 10 ** max(0, int(math.log10(wanted)) - 1)
    return int(math.ceil(wanted / unit) * unit)
