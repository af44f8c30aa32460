"""Where everything stands: the folders of `data/` that stages hand on, and what a checkout keeps outside of DVC.

All are relative to the working folder, which is the root of a checkout or of a rebuild's workspace.
"""

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
INCONSISTENT_PAIRS = Path("data/mined/inconsistent.parquet")  # that retrieval is not trained on
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
