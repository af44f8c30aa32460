"""Verification of a release folder without a network, a GPU or the pipeline: its files, then its embeddings."""

import json
import sys
from pathlib import Path
from typing import Any

from stages.release.checksums import checksum_faults
from stages.release.formats import FORMATS, NEEDED
from stages.release.parity import check_parity
from stages.release.parity_samples import load_samples
from stages.release.release_lineage import lineage_faults

# Files that a release may hold: weights are safetensors and graphs; .bin and .data belong to a graph beside them.
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
# First bytes of Python's pickles (protocols 2 to 5) and of zip files, in which torch stores pickles.
PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")


def verify(release: Path, *, files: bool = False, threads: int = 2) -> None:
    """Verify a release folder; print each fault and exit with status 1 if there are any.

    Every file is compared with SHA256SUMS; lineage, card and parity report are read; then each format embeds the
    release's sample texts with the packages of its consumer alone, and must give the embeddings of the trained model.

    Args:
        release: the folder, e.g. data/quantized/stillhouse-pico.
        files: check files, lineage and card only; no format is loaded.
        threads: CPU threads for loading the formats.
    """
    faults = release_faults(release, embed=not files, threads=threads)
    for fault in faults:
        print(f"wrong: {fault}")
    if faults:
        sys.exit(1)
    print(f"{release}: nothing is wrong with it")


def release_faults(release: Path, *, embed: bool, threads: int) -> list[str]:
    """List the faults of a release; its formats are loaded (`embed`) only if its files are as they were released."""
    return content_faults(release) or (parity_faults(release, threads) if embed else [])


def content_faults(release: Path) -> list[str]:
    """List faults of files, lineage and card; this takes a second and finds any changed byte."""
    if not release.is_dir():
        return [f"there is no folder {release}"]
    faults = checksum_faults(release)
    files = [path for path in sorted(release.rglob("*")) if path.is_file()]
    faults += [f"{path.relative_to(release).as_posix()}: {fault}" for path in files if (fault := _file_fault(path))]
    faults += [f"{name} is missing" for name in NEEDED_FILES if not (release / name).is_file()]
    if faults:  # the content of these files cannot be trusted
        return list(dict.fromkeys(faults))
    lineage = _read_json(release / "lineage.json")
    return lineage_faults(lineage) + _card_faults(release, lineage) + _format_faults(release)


def parity_faults(release: Path, threads: int) -> list[str]:
    """List formats whose embeddings of short texts are no longer those of the trained model.

    Each format is loaded with the packages of its consumer alone, which must be installed.
    """
    report, samples = _read_json(release / "parity.json"), load_samples(release)
    short = samples.part(samples.short)
    found = check_parity(release, _passed(report), short, report["limits"], threads)
    return [f"{name}: {reason}" for name, result in found.items() for reason in result["reasons"]]


def _passed(report: dict[str, Any]) -> list[str]:
    """Formats that passed the parity gate, according to parity.json."""
    return [name for name, result in report["formats"].items() if result["released"]]


def _file_fault(path: Path) -> str | None:
    """Say why a release may not hold this file; None if it may."""
    if path.suffix in BESIDE_A_GRAPH:
        graph = path.with_name(BESIDE_A_GRAPH[path.suffix])
        return None if path.name.startswith("model.") and graph.is_file() else f"a {path.suffix} file beside no graph"
    if path.suffix not in SUFFIXES:
        return f"a release holds no {path.suffix} files"
    with path.open("rb") as content:
        start = content.read(9)
    if path.suffix == ".safetensors":  # eight bytes of length, which may be any, then JSON
        return None if start.endswith(b"{") else "this is not a safetensors file"
    return "this is a pickle" if start.startswith(PICKLES) else None


def _card_faults(release: Path, lineage: dict[str, Any]) -> list[str]:
    """List licences and sources of the lineage that the cards do not state."""
    cards = [release / "README.md", *sorted((release / "merged").glob("*/README.md"))]
    expected = f"license: {lineage['license'].lower()}"
    texts = {path.relative_to(release).as_posix(): path.read_text(encoding="utf-8") for path in cards}
    faults = [f"{name} does not say {expected!r}" for name, text in texts.items() if expected not in text.splitlines()]
    trained_on = [source["name"] for source in lineage["sources"] if source["trained_on"]]
    missing = [name for name in trained_on if f"| {name} |" not in texts["README.md"]]
    return faults + [f"README.md does not name the source {name}" for name in missing]


def _format_faults(release: Path) -> list[str]:
    """List formats that are present without having passed, or have passed without being present."""
    passed = set(_passed(_read_json(release / "parity.json")))
    present = {name for name in FORMATS if (release / name).is_dir()}
    faults = [f"{form.name} is needed and did not pass" for form in NEEDED if form.name not in passed]
    faults += [f"{name} passed and is not there" for name in sorted(passed - present)]
    faults += [f"{name} is there and did not pass" for name in sorted(present - passed)]
    tasks = set(load_samples(release).references)
    for name in sorted(passed & present):
        if lacking := sorted(tasks - {path.name for path in (release / name).iterdir()}):
            faults.append(f"{name} lacks {', '.join(lacking)}")
    return faults


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
