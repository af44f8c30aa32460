"""Checksums of a release, by this project and by coreutils."""

import subprocess
from pathlib import Path

import pytest

from stages.release.checksums import checksum_faults, write_checksums, write_json


@pytest.fixture
def release(tmp_path: Path) -> Path:
    write_json(tmp_path / "merged/a b/config.json", {"b": "ü", "a": 1})
    (tmp_path / "model.bin").write_bytes(bytes(range(256)))
    write_checksums(tmp_path)
    return tmp_path


def test_json_is_sorted_and_readable(release: Path) -> None:
    assert (release / "merged/a b/config.json").read_text() == '{\n  "a": 1,\n  "b": "ü"\n}\n'


def test_coreutils_agree(release: Path) -> None:
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=release, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "merged/a b/config.json: OK\nmodel.bin: OK\n")
    assert checksum_faults(release) == []


def test_each_kind_of_change_is_named(release: Path) -> None:
    (release / "model.bin").write_bytes(bytes(256))
    (release / "merged/a b/config.json").rename(release / "other.json")
    assert checksum_faults(release) == [
        "merged/a b/config.json is missing",
        "other.json is not in SHA256SUMS",
        "model.bin is not the file that was released",
    ]


def test_a_broken_list_is_named(release: Path) -> None:
    sums = release / "SHA256SUMS"
    sums.write_bytes(b"\xff" + sums.read_bytes()[1:])
    assert checksum_faults(release)[0] == "SHA256SUMS line 1 is no checksum"
    sums.unlink()
    assert checksum_faults(release) == ["SHA256SUMS is missing"]
