"""Outputs that DVC links from its cache are read-only: a stage owns what it copies of them, and may write there."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.extend import hand_on
from stages.promote import write_evidence
from stages.recipe.paths import ADAPTED, DISTILLED, EVALUATED, EXTENDED, PROMOTED
from stages.release.writers import copy_adapter

ADAPTER = ADAPTED / "retrieval"
FILES = {
    ADAPTER / "adapter_config.json": '{"base_model_name_or_path": "data/extended/student"}',
    ADAPTER / "adapter_model.safetensors": "a",
    DISTILLED / "student/model.safetensors": "a",
    DISTILLED / "projection.safetensors": "a",
    EVALUATED / "evidence/rows": "a",
    EVALUATED / "figures.json": "{}",
}


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose outputs are links to DVC's cache."""
    folder = tmp_path_factory.mktemp("linked")
    for file, text in FILES.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text)
    commands = (["init", "--quiet", "--no-scm"], ["config", "cache.type", "hardlink,symlink"])
    for command in (*commands, ["add", "--quiet", *(str(one) for one in (ADAPTED, DISTILLED, EVALUATED))]):
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=folder, check=True)
    assert {(folder / file).stat().st_mode & 0o777 for file in FILES} == {0o444}
    return folder


def adapter() -> Path:
    target = Path("data/quantized/tiny/adapters/retrieval")
    copy_adapter(ADAPTER, target, "tiny")
    assert json.loads((target / "adapter_config.json").read_text())["base_model_name_or_path"] == "tiny"
    return target


def student() -> Path:
    hand_on(DISTILLED, EXTENDED)
    return EXTENDED


def evidence() -> Path:
    write_evidence([])
    return PROMOTED / "evidence"


@pytest.mark.parametrize("copy", [adapter, student, evidence])
def test_a_copy_of_linked_outputs_can_be_written(
    linked: Path, monkeypatch: pytest.MonkeyPatch, copy: Callable[[], Path]
) -> None:
    monkeypatch.chdir(linked)
    modes = {str(file): file.stat().st_mode & 0o200 for file in copy().rglob("*") if file.is_file()}
    assert modes and all(modes.values()), modes
