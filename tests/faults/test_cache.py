"""DVC's cache damaged, and not writable."""

import json
import os
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

from flows.cache import remove_damaged
from flows.pipeline import check_out, read_pipeline
from flows.workspace import workspace
from tests.faults.conftest import obey_permissions
from tests.flows.conftest import ROOT, commit

DVC = (sys.executable, "-m", "dvc")


def objects_of(path: str) -> list[Path]:
    """The cache's objects of an output: of a folder its list, then its files."""
    stages = YAML(typ="safe").load(Path("dvc.lock"))["stages"].values()
    (name,) = [out["md5"] for stage in stages for out in stage["outs"] if out["path"] == path]
    whole = Path(".dvc/cache/files/md5", name[:2], name[2:])
    inside = [one["md5"] for one in json.loads(whole.read_bytes())] if name.endswith(".dir") else []
    return [whole, *(whole.parents[1] / one[:2] / one[2:] for one in inside)]


def damage(file: Path) -> None:
    """Another bit, as a disk may give back: neither size nor mode tell."""
    content = bytearray(file.read_bytes())
    content[0] ^= 1
    file.chmod(0o644)
    file.write_bytes(content)
    file.chmod(0o444)


def test_a_damaged_object_is_found_before_it_is_read_and_its_stage_runs_again(project: Path) -> None:
    subprocess.run([*DVC, "repro", "--quiet"], check=True)
    commit("built")
    damaged = [objects_of("data/curated.txt")[0], objects_of("data/evaluated")[1]]
    good = [one.read_bytes() for one in damaged]
    for one in damaged:
        damage(one)
    with workspace(project, "one", "HEAD") as space:
        # The adapters' copies are the same object as data/curated.txt, which is named after one of them.
        assert remove_damaged(space.folder) == ["data/clustering.txt", "data/evaluated/figures.json"]
        stale = {stage.name for stage in read_pipeline(space.folder, has_remote=False) if stage.reasons}
        assert stale >= {"curate", "evaluate"}
        check_out(space.folder)
        subprocess.run([*DVC, "repro", "--quiet"], cwd=space.folder, check=True)
        assert (space.folder / "data/curated.txt").read_text() == "good\n"
        assert remove_damaged(space.folder) == []
    assert [one.read_bytes() for one in damaged] == good


def test_a_cache_that_cannot_be_written_is_refused_before_any_stage_runs(project: Path) -> None:
    cache = project / ".dvc/cache"
    cache.mkdir(exist_ok=True)
    code = (
        "from pathlib import Path; from flows.workspace import workspace as w\nwith w(Path.cwd(), 'one', 'HEAD'): pass"
    )
    command, environment = [sys.executable, "-c", code], {**os.environ, "PYTHONPATH": str(ROOT)}

    def attempt() -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=obey_permissions,
        )

    cache.chmod(0o555)
    refused = attempt()
    cache.chmod(0o755)
    assert f"ValueError: DVC's cache {cache} cannot be written" in refused.stderr
    assert not (project / ".stillhouse/workspaces").exists()
    assert attempt().returncode == 0
