"""What is wrong with a release folder, found without a network: files, content, lineage, card; then its vectors."""

import json
from pathlib import Path
from typing import Any

from stages.release.checksums import checksum_faults
from stages.release.formats import FORMATS, NEEDED
from stages.release.lineage import lineage_faults
from stages.release.parity import parity
from stages.release.parity_samples import load_samples

# What a release is made of. Weights are safetensors and graphs; .bin and .data belong to a graph of the same name.
SUFFIXES = {".json", ".jinja", ".md", ".onnx", ".safetensors", ".txt", ".xml", ""}
BESIDE_A_GRAPH = {".bin": "model.xml", ".data": "model.onnx"}
NEEDED_FILES = (
    "README.md",
    "calibration.json",
    "lineage.json",
    "parity.json",
    "parity/reference.safetensors",
    "parity/texts.json",
)
# First bytes of Python's pickles (protocols 2 to 5) and of zip files, which torch keeps them in.
PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")


def content_faults(release: Path) -> list[str]:
    """What files, lineage and card say; cheap, and enough to find a byte that was changed."""
    if not release.is_dir():
        return [f"there is no folder {release}"]
    found = checksum_faults(release)
    files = [path for path in sorted(release.rglob("*")) if path.is_file()]
    found += [f"{path.relative_to(release).as_posix()}: {why}" for path in files if (why := _not_plain(path))]
    found += [f"{name} is missing" for name in NEEDED_FILES if not (release / name).is_file()]
    if found:  # what these files say is not to be trusted
        return list(dict.fromkeys(found))
    lineage = _json(release / "lineage.json")
    return lineage_faults(lineage) + _card_faults(release, lineage) + _format_faults(release)


def parity_faults(release: Path, threads: int) -> list[str]:
    """Where the vectors of a format are no longer those of the model that was trained, on short texts.

    Each format is read with its consumer's packages alone, which have to be installed.
    """
    report, every = _json(release / "parity.json"), load_samples(release)
    again = parity(release, released(report), every.with_vectors(every.short), report["limits"], threads)
    return [f"{name}: {reason}" for name, one in again.items() for reason in one["reasons"]]


def released(report: dict[str, Any]) -> list[str]:
    """Formats that passed, by the report of the release."""
    return [name for name, one in report["formats"].items() if one["released"]]


def _not_plain(path: Path) -> str | None:
    """Why a file is none that a release may hold."""
    if path.suffix in BESIDE_A_GRAPH:
        graph = path.with_name(BESIDE_A_GRAPH[path.suffix])
        return None if path.name.startswith("model.") and graph.is_file() else f"a {path.suffix} file beside no graph"
    if path.suffix not in SUFFIXES:
        return f"a release holds no {path.suffix} files"
    with path.open("rb") as content:
        start = content.read(9)
    if path.suffix == ".safetensors":  # eight bytes of length, which may be any, then JSON
        return None if start.endswith(b"{") else "these are no safetensors"
    return "this is a pickle" if start.startswith(PICKLES) else None


def _card_faults(release: Path, lineage: dict[str, Any]) -> list[str]:
    cards = [release / "README.md", *sorted((release / "merged").glob("*/README.md"))]
    expected = f"license: {lineage['license'].lower()}"
    texts = {path.relative_to(release).as_posix(): path.read_text(encoding="utf-8") for path in cards}
    found = [f"{name} does not say {expected!r}" for name, text in texts.items() if expected not in text.splitlines()]
    trained_on = [one["name"] for one in lineage["sources"] if one["trained_on"]]
    missing = [name for name in trained_on if f"| {name} |" not in texts["README.md"]]
    return found + [f"README.md does not name the source {name}" for name in missing]


def _format_faults(release: Path) -> list[str]:
    """Formats that are there without having passed, or have passed and are not there."""
    report = _json(release / "parity.json")
    passed, present = set(released(report)), {name for name in FORMATS if (release / name).is_dir()}
    found = [f"{name} is needed and did not pass" for name in sorted({one.name for one in NEEDED} - passed)]
    found += [f"{name} passed and is not there" for name in sorted(passed - present)]
    found += [f"{name} is there and did not pass" for name in sorted(present - passed)]
    tasks = set(load_samples(release).readings)
    for name in sorted(passed & present):
        if lacking := sorted(tasks - {path.name for path in (release / name).iterdir()}):
            found.append(f"{name} lacks {', '.join(lacking)}")
    return found


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
