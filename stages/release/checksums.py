"""SHA256SUMS of a release, and JSON files with the same bytes for the same value."""

import json
import re
from pathlib import Path

from stages.tracking.digests import digest

SUMS = "SHA256SUMS"
_SUM_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")


def write_json(path: Path, value: object) -> None:
    """Write a value as JSON with sorted keys and indentation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def write_checksums(release: Path) -> None:
    """Write SHA256SUMS over every other file of a release, in the format of `sha256sum -c`."""
    lines = [f"{digest(release / name)}  {name}\n" for name in _file_names(release)]
    (release / SUMS).write_text("".join(lines), encoding="utf-8")


def checksum_faults(release: Path) -> list[str]:
    """List changed, missing and additional files of a release; empty when all files match SHA256SUMS."""
    if not (release / SUMS).is_file():
        return [f"{SUMS} is missing"]
    lines = (release / SUMS).read_bytes().decode("utf-8", errors="replace").splitlines()
    matches = [_SUM_LINE.fullmatch(line) for line in lines]
    faults = [f"{SUMS} line {number} is no checksum" for number, match in enumerate(matches, start=1) if match is None]
    expected = {match[2]: match[1] for match in matches if match is not None}
    present = set(_file_names(release))
    faults += [f"{name} is missing" for name in sorted(expected.keys() - present)]
    faults += [f"{name} is not in {SUMS}" for name in sorted(present - expected.keys())]
    changed = (name for name in sorted(expected.keys() & present) if digest(release / name) != expected[name])
    return faults + [f"{name} is not the file that was released" for name in changed]


def _file_names(release: Path) -> list[str]:
    """Paths of all files but SHA256SUMS, relative to the release."""
    files = (path.relative_to(release).as_posix() for path in release.rglob("*") if path.is_file())
    return sorted(name for name in files if name != SUMS)
