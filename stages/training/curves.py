"""Training curves as CSV files, which DVC plots and the report reads."""

import csv
from collections.abc import Sequence
from pathlib import Path


def write_curve(path: Path, curve: list[dict[str, float]], header: Sequence[str] = ("step", "loss")) -> None:
    """Write a curve, a row for each step; a cell is empty where a row lacks the figure.

    Args:
        header: columns of a curve without rows, which DVC plots expects.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(name for row in curve for name in row)) or header
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(curve)


def read_curve(path: Path) -> list[dict[str, float]]:
    """Read a curve back; empty cells are left out of their rows."""
    with path.open(newline="", encoding="utf-8") as stream:
        return [{name: float(cell) for name, cell in row.items() if cell} for row in csv.DictReader(stream)]
