"""Verify a release folder, without a network and without the pipeline: what is wrong with it, or that nothing is.

`python -m stages.verify RELEASE` compares every file with SHA256SUMS, looks for pickles, reads lineage, card and parity
report; then has each format embed its sample texts with the packages of its consumer alone, and compares the vectors
with those of the model that was trained. Exit status 1 and a line for each fault, or 0.
"""

import argparse
import sys
from pathlib import Path


def main() -> None:
    """Verify, print, exit."""
    parser = argparse.ArgumentParser(prog="python -m stages.verify", description="Verify a release folder.")
    parser.add_argument("release", type=Path, help="the folder, e.g. data/quantized/stillhouse-pico")
    parser.add_argument("--files", action="store_true", help="files, lineage and card only: no format is loaded")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of a format (default: 2)")
    arguments = parser.parse_args()
    faults = verify(arguments.release, vectors=not arguments.files, threads=arguments.threads)
    for fault in faults:
        print(f"wrong: {fault}")
    if faults:
        sys.exit(1)
    print(f"{arguments.release}: nothing is wrong with it")


def verify(release: Path, *, vectors: bool, threads: int) -> list[str]:
    """What is wrong with a release; a file that is not as released is named before any of them is loaded."""
    from stages.release.verification import content_faults, parity_faults

    found = content_faults(release)
    return found or (parity_faults(release, threads) if vectors else [])


if __name__ == "__main__":
    main()
