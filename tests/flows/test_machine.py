"""Machines as people have them: users without a name or a home, homes that cannot be written, proxies."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stages.recipe.process_environment import child_environment
from tests.flows.conftest import ROOT

NAMELESS = ("unshare", "--user", "--map-user=12345", "--map-group=12345")


def may_be_nameless() -> bool:
    known = shutil.which("unshare")
    return known is not None and subprocess.run([*NAMELESS, "true"], check=False, capture_output=True).returncode == 0


nameless = pytest.mark.skipif(not may_be_nameless(), reason="this machine lets nobody be another user")


def without(*names: str, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("USER", "LOGNAME", *names)}
    return kept | {"PYTHONPATH": str(ROOT)} | more


def said(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run([*NAMELESS, *command], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@nameless
def test_dvc_starts_for_a_user_without_name_and_home(project: Path) -> None:
    script = (
        "from flows.pipeline import read_pipeline; from pathlib import Path; import os\n"
        "from stages.recipe.process_environment import settle; settle(os.environ)\n"
        "print([stage.name for stage in read_pipeline(Path.cwd(), has_remote=False)], Path.home())"
    )
    shown = said([sys.executable, "-c", script], project, without("HOME"))
    assert shown == f"['curate', 'adapt@retrieval', 'adapt@clustering', 'evaluate'] {project}/.stillhouse/home\n"


@nameless
def test_make_names_such_a_user_and_gives_it_a_home(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    with (tmp_path / "Makefile").open("a") as file:
        file.write("\nshow:\n\t@echo $$USER $$HOME\n")
    assert said(["make", "--silent", "show"], tmp_path, without("HOME")) == f"12345 {tmp_path}/.stillhouse/home\n"
    assert (tmp_path / ".stillhouse/home").is_dir()
    assert said(["make", "--silent", "show"], tmp_path, without(USER="ada", HOME="/tmp")) == "ada /tmp\n"  # noqa: S108


def test_servers_on_this_machine_are_reached_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", "intranet,localhost")
    expected = "intranet,localhost,127.0.0.1,::1"
    assert (child_environment()["no_proxy"], child_environment()["NO_PROXY"]) == (expected, expected)


@pytest.mark.slow
def test_a_rebuild_behind_a_proxy_and_without_a_home_to_write_to_ends_well(project: Path) -> None:
    proxies = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY"), "http://127.0.0.1:9")
    environment = without(
        "NO_PROXY", "no_proxy", "PREFECT_API_URL", "PREFECT_HOME", HOME=str(project / "none"), **proxies
    )
    command = [sys.executable, "-m", "flows.cli", "rebuild"]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 of 4 stages ran" in done.stdout + done.stderr
    assert (project / ".stillhouse/prefect/prefect.db").is_file()
