"""Where everything stands: the folders of `data/` that stages hand on, and what a checkout keeps outside of DVC.

All are relative to the working folder, which is the root of a checkout or of a rebuild's workspace.
"""

import os
from pathlib import Path

RECIPE = Path("params.yaml")
# The user's own files.
SOURCES = Path("data/sources")

# One folder for each stage, written by it alone.
CHECKED = Path("data/checked")
CURATED = Path("data/curated")
VALIDATED = Path("data/validated")
EMBEDDED = Path("data/embedded")
MINED = Path("data/mined")
INCONSISTENT_PAIRS = Path("data/mined/inconsistent.parquet")  # that retrieval is neither trained nor measured on
DISTILLED = Path("data/distilled")
EXTENDED = Path("data/extended")
ADAPTED = Path("data/adapted")
QUANTIZED = Path("data/quantized")
EVALUATED = Path("data/evaluated")
FIGURES = Path("data/evaluated/figures.json")  # every figure; metrics.json beside it has the headline for DVC
PROMOTED = Path("data/promoted")
# One file for each stage: which run wrote the stage's outputs.
LINEAGE = Path("data/lineage")

# Kept between builds and never an output of DVC.
STATE = Path(".stillhouse")
MLFLOW = Path("mlflow.db")
VECTORS = STATE / "vectors"
QUESTIONS = STATE / "questions"  # answers of language models
CHECKPOINTS = STATE / "checkpoints"
REFUSED = STATE / "refused"
EVALUATED_VECTORS = STATE / "evaluated"
MTEB_RESULTS = STATE / "mteb"
FAILURES = STATE / "failures"

# Environment variable that names the folder in which a stage's processes report how they failed.
FAILURES_VARIABLE = "STILLHOUSE_FAILURES"
# Environment variable with the number of machines that share the processes of a training stage.
MACHINES_VARIABLE = "STILLHOUSE_MACHINES"


def store_address(file: Path) -> str:
    """Return the address of an MLflow store in a SQLite file.

    SQLAlchemy ends a path at its first `?` and has no other spelling for it, so the address of such a file is relative
    to the working folder.

    Raises:
        ValueError: the relative path has a `?` too.
    """
    path = os.path.relpath(file) if "?" in str(file) else str(file)
    if "?" in path:
        raise ValueError(f"got the path {file}, expected none with `?`, where MLflow's database would be another file")
    return f"sqlite:///{path}"
