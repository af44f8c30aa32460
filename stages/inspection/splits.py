"""Shares of dev and test that leave each split what `curate` asks for, larger where few rows would leave one empty."""

import itertools
from collections.abc import Collection

import numpy as np

from stages.corpus.feasibility import MIN_SCORED
from stages.inspection.statistics import TableFacts

# Fewest rows of a file, and fewest of them in training, and in dev or test.
LEAST_ROWS, LEAST_TRAINED, LEAST_HELD_OUT = 10, 4, 2
# Wanted shares of dev and test, and the most that both may take.
DEV, TEST, MOST_HELD_OUT = 0.1, 0.2, 0.6
# The evaluation fits a classifier on dev: rows of each label that it should have there, and the share they may take.
DEV_ROWS_OF_A_LABEL, MOST_FITTED = 8, 0.25

# The shares of dev and test, and the number of rows in each split.
Shares = tuple[float, float, dict[str, int]]


def split_shares(facts: TableFacts, tasks: Collection[str], holdout: bool) -> Shares | None:
    """Choose the shares nearest to those wanted that suffice for these tasks; None where there are none."""
    order = np.argsort(facts.positions, kind="stable")
    places = np.array(facts.positions)[order]
    labels = np.array(facts.labels, dtype=object)[order] if {"clustering", "classification"} & set(tasks) else None
    scores = np.array(facts.scores)[order] if any(facts.scores) else None
    wanted = DEV
    if "classification" in tasks and "retrieval" not in tasks:  # pairs are worth more in training
        fitted = DEV_ROWS_OF_A_LABEL * len(set(facts.labels) - {""}) / len(places)
        wanted = min(MOST_FITTED, max(DEV, fitted))
    choices: list[tuple[float, float, float, int, int]] = []
    for fiftieths in itertools.product(range(1, 31), range(1, 31) if holdout else [0]):
        dev, test = (number / 50 for number in fiftieths)
        tested, held_out = np.searchsorted(places, [test, test + dev]).tolist()
        if held_out <= len(places) * MOST_HELD_OUT:
            distance = abs((held_out - tested) / len(places) - wanted) + abs(tested / len(places) - TEST * holdout)
            choices.append((distance + abs(test - TEST) / 100, dev, test, tested, held_out))
    for _, dev, test, tested, held_out in sorted(choices):
        parts = {"train": slice(held_out, None), "dev": slice(tested, held_out), "test": slice(0, tested)}
        if not holdout:
            del parts["test"]
        counts = {name: len(places[part]) for name, part in parts.items()}
        if counts["train"] < LEAST_TRAINED or counts["dev"] < LEAST_HELD_OUT:
            continue
        of_labels = parts.values() if holdout else [parts["train"]]
        if labels is not None and any(len(set(labels[part]) - {""}) < 2 for part in of_labels):
            continue
        if scores is not None and len(np.unique(scores[parts["train"]])) < 2:
            continue
        if holdout and not _can_measure(places[:tested], None if scores is None else scores[:tested]):
            continue
        return dev, test, counts if holdout else counts | {"test": 0}
    return None


def _can_measure(places: np.ndarray, scores: np.ndarray | None) -> bool:
    """Whether test rows are of two entities, and where they have scores, are enough to be put in order."""
    if len(np.unique(places)) < LEAST_HELD_OUT:
        return False
    return scores is None or (len(scores) >= MIN_SCORED and len(np.unique(scores)) > 1)


def cannot_be_split(facts: TableFacts, tasks: Collection[str], holdout: bool) -> ValueError:
    """Say why the rows cannot be split, and what helps."""
    groups = len(set(facts.positions))
    helps = ""
    if holdout and split_shares(facts, tasks, holdout=False):
        helps = ", or leave the test out with --no-holdout: then nothing says how good the model is"
    return ValueError(
        f"got {facts.kept} usable rows in {groups} groups that stay together (rows of a file, an answer or a value of "
        "the entity column; scored pairs with a common text), which cannot be split into training, dev and test "
        f"rows; bring rows of more groups{helps}"
    )
