"""The files of a release: JSON that is the same bytes for the same value, and a checksum of every file."""

import json
import re
from pathlib import Path

from stages.tracking.runs import digest

SUMS = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")


def write_json(path: Path, value: object) -> None:
    """Write a value as JSON, sorted and indented."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def write_checksums(release: Path) -> None:
    """Write SHA256SUMS over every other file of a release, as `sha256sum -c` reads it."""
    lines = [f"{digest(release / name)}  {name}\n" for name in _names(release)]
    (release / SUMS).write_text("".join(lines), encoding="utf-8")


def checksum_faults(release: Path) -> list[str]:
    """What is not as SHA256SUMS says: changed, missing and additional files; empty when all is well."""
    if not (release / SUMS).is_file():
        return [f"{SUMS} is missing"]
    lines = (release / SUMS).read_bytes().decode("utf-8", errors="replace").splitlines()
    matches = [_LINE.fullmatch(line) for line in lines]
    faults = [f"{SUMS} line {number + 1} is no checksum" for number, match in enumerate(matches) if match is None]
    expected = {match[2]: match[1] for match in matches if match is not None}
    present = set(_names(release))
    faults += [f"{name} is missing" for name in sorted(expected.keys() - present)]
    faults += [f"{name} is not in {SUMS}" for name in sorted(present - expected.keys())]
    changed = (name for name in sorted(expected.keys() & present) if digest(release / name) != expected[name])
    return faults + [f"{name} is not the file that was released" for name in changed]


def _names(release: Path) -> list[str]:
    """Every file but SHA256SUMS, by its path in the release."""
    files = (path.relative_to(release).as_posix() for path in release.rglob("*") if path.is_file())
    return sorted(name for name in files if name != SUMS)
