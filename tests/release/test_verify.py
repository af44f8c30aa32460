"""Verification finds nothing wrong with a release as it was written, and every way to spoil one."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from stages.release.checksums import write_checksums, write_json
from stages.release.verification import release_faults, verify
from tests.conftest import TASKS

pytestmark = pytest.mark.slow  # all read the release, which takes the stage half a minute to write

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def copied(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "release"))


def test_a_release_as_it_was_made_is_fine_without_torch_in_this_process(built: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from stages.release.verification import release_faults;"
        f"print(release_faults(Path({str(built)!r}), embed=True, threads=1), 'torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "[] False\n", done.stderr


def test_the_command_lists_what_is_wrong_and_fails(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verify(copied, files=True)
    assert capsys.readouterr().out == f"{copied}: nothing is wrong with it\n"
    (copied / "calibration.json").unlink()
    with pytest.raises(SystemExit, match="1"):
        verify(copied, files=True)
    assert capsys.readouterr().out == "wrong: calibration.json is missing\n"


KINDS = (
    "README.md",
    "SHA256SUMS",
    "lineage.json",
    "parity.json",
    "calibration.json",
    "parity/texts.json",
    "parity/reference.safetensors",
    "base/model.safetensors",
    "base/tokenizer.json",
    "adapters/clustering/adapter_model.safetensors",
    "adapters/clustering/adapter_config.json",
    "merged/retrieval/model.safetensors",
    "merged/retrieval/1_Pooling/config.json",
    "onnx/text-matching/model.onnx",
    "onnx/text-matching/embedder.json",
    "onnx-int8/classification/model.onnx",
    "openvino-int8/retrieval/model.bin",
    "openvino-int8/retrieval/model.xml",
)


@pytest.mark.parametrize("name", KINDS)
def test_one_changed_byte_is_found(copied: Path, name: str) -> None:
    content = bytearray((copied / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / name).write_bytes(content)
    found = release_faults(copied, embed=False, threads=1)
    assert found, "a byte was changed"
    if name != "SHA256SUMS":
        assert found == [f"{name} is not the file that was released"]


def spoil_lineage(release: Path) -> None:
    lineage = json.loads((release / "lineage.json").read_text())
    lineage["sources"][0]["license"] = ""
    del lineage["sources"][1]["license"]
    write_json(release / "lineage.json", lineage | {"license": "MIT"})


def shorten_lineage(release: Path) -> None:
    lineage = json.loads((release / "lineage.json").read_text())
    write_json(release / "lineage.json", {name: lineage[name] for name in ("name", "license", "teacher", "sources")})


def forge_report(release: Path) -> None:
    report = json.loads((release / "parity.json").read_text())
    report["formats"]["onnx"]["released"] = False
    report["formats"]["merged"]["released"] = False
    write_json(release / "parity.json", report)


CARDS = ("README.md", *(f"merged/{task}/README.md" for task in sorted(TASKS)))


def added(name: str, content: bytes) -> Callable[[Path], Any]:
    return lambda release: (release / name).write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (added("base/a.pkl", b"\x80\x04."), ["base/a.pkl: a release holds no .pkl files"]),
        (added("base/a.txt", b"\x80\x04K\x01."), ["base/a.txt: this is a pickle"]),
        (added("base/a.safetensors", b"\x80\x04K\x01."), ["base/a.safetensors: this is not a safetensors file"]),
        (added("base/pytorch_model.bin", b"PK\x03\x04"), ["base/pytorch_model.bin: a .bin file beside no graph"]),
        (lambda release: (release / "lineage.json").unlink(), ["lineage.json is missing"]),
        (lambda release: shutil.rmtree(release / "onnx"), ["onnx passed and is not there"]),
        (lambda release: shutil.rmtree(release / "onnx/retrieval"), ["onnx lacks retrieval"]),
        (
            forge_report,
            ["merged is needed and did not pass", "merged is there and did not pass", "onnx is there and did not pass"],
        ),
        (shorten_lineage, ["lineage.json has no recipe_sha256, git_sha, git_dirty, dvc_lock_sha256"]),
        (
            spoil_lineage,
            [
                "lineage.json: wikipedia has no licence",
                "lineage.json: wikipedia-descriptions has no licence",
                *(f"{name} does not say 'license: mit'" for name in CARDS),
            ],
        ),
    ],
)
def test_a_release_that_was_signed_again_is_read_too(
    copied: Path, spoil: Callable[[Path], Any], expected: list[str]
) -> None:
    """Checksums say that files are as somebody wrote them, not that they are a release."""
    spoil(copied)
    write_checksums(copied)
    assert release_faults(copied, embed=False, threads=1) == expected


def test_other_weights_are_found_by_their_vectors(copied: Path) -> None:
    weights = copied / "onnx/clustering/model.onnx"
    shutil.copy(copied / "onnx/retrieval/model.onnx", weights)
    (copied / "openvino-int8/retrieval/model.xml").write_text("<net/>")
    adapter = copied / "adapters/retrieval/adapter_model.safetensors"
    save_file({name: 2 * tensor for name, tensor in load_file(adapter).items()}, adapter, metadata={"format": "pt"})
    tokenizer = copied / "onnx-int8/retrieval/tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"max_length": 40', '"max_length": 39'))
    write_checksums(copied)
    found = release_faults(copied, embed=True, threads=1)
    assert {fault.partition(": ")[0] for fault in found} == {"adapters", "onnx", "onnx-int8", "openvino-int8"}, found
    assert any(fault.startswith("onnx: clustering: cosine_min is ") for fault in found)
    assert any(fault.startswith("onnx-int8: retrieval: ") and "other tokens" in fault for fault in found), found
    assert not any(fault.startswith("onnx: retrieval") for fault in found)
