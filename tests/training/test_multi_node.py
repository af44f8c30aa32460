"""A stage on two machines, as Ray sees them, against two processes of one: through deploy/machine.sh and `launch`."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch

from flows.failure_causes import PAUSES, Fault, classify, read_reports
from stages.recipe.paths import FAILURES_VARIABLE
from stages.training.launch import launch
from tests.machines import SCRIPT as SCRIPT_OF_A_MACHINE
from tests.machines import SECONDS, first_machine, machine, wait_for
from tests.servers import free_port
from tests.training.test_distributed import ROOT, SCRIPT, finish, learned, start

# The stage: train_all.py, which tests/training/test_distributed.py writes, as two processes; each says where it runs.
STAGE = """
import json, os, runpy, sys
from pathlib import Path
from stages.tracking.failure_report import reported_failure
from stages.training.launch import launch

def train():
    launch(["two"], 2)
    names = ("RANK", "LOCAL_RANK", "GROUP_RANK", "CUDA_DEVICE_ORDER", "HF_TOKEN")
    Path(f"rank{os.environ['RANK']}.json").write_text(json.dumps({name: os.environ.get(name) for name in names}))
    if bad := os.environ.get("STILLHOUSE_BAD_RANK"):
        import torch
        from stages.training.distributed import TrainingProcesses
        processes = TrainingProcesses(2)
        processes.check_same_step(1)
        if os.environ["RANK"] == bad:
            raise ValueError("bad data")
        processes.check_same_step(2)
    sys.argv = ["train_all.py", "2", "4", "whole", BACKBONE, "retrieval"]
    runpy.run_path("train_all.py", run_name="__main__")

with reported_failure():
    train()
"""

# Waits until the first machine is alone in the cluster.
ALONE = """
import ray, time
ray.init(logging_level="error")
while sum(node["Alive"] for node in ray.nodes()) > 1:
    time.sleep(0.2)
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a stage on the first machine; each test starts the second machine itself."""
    with first_machine(tmp_path_factory.mktemp("first")) as environment:
        yield environment


@pytest.fixture(scope="module")
def project(backbones: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the stage runs, with the weights that two processes of a single machine learned."""
    folder = tmp_path_factory.mktemp("project")
    finish(start(folder, backbones["eurobert"], 2, names=("retrieval",)))
    (folder / "retrieval.safetensors").rename(folder / "alone.safetensors")
    slower = SCRIPT.replace("time.sleep(0.03)", "time.sleep(0.5)")  # time to kill it
    (folder / "train_all.py").write_text(slower, encoding="utf-8")
    (folder / "two.py").write_text(STAGE.replace("BACKBONE", repr(str(backbones["eurobert"]))), encoding="utf-8")
    return folder


@pytest.fixture
def folder(project: Path, tmp_path: Path) -> Path:
    """A copy of the project for a single test."""
    return Path(shutil.copytree(project, tmp_path / "own"))


@contextmanager
def second_machine(folder: Path, environment: dict[str, str]) -> Iterator[psutil.Process]:
    """The second machine, until the end of the block and until the cluster knows that it is gone."""
    with machine(1, folder, environment) as second:
        yield second
    subprocess.run([sys.executable, "-c", ALONE], env=environment, check=True, timeout=SECONDS)


def started(folder: Path, environment: dict[str, str], **own: str) -> "subprocess.Popen[str]":
    failures = folder / "failures"
    shutil.rmtree(failures, ignore_errors=True)
    failures.mkdir()
    own |= {
        "PYTHONPATH": str(ROOT),
        "CUDA_VISIBLE_DEVICES": "",
        "HF_TOKEN": "planted",
        FAILURES_VARIABLE: str(failures),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "two"],
        cwd=folder,
        env=environment | own,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def fault(folder: Path) -> Fault:
    """The fault behind a stage that failed, as a flow finds it."""
    return classify(read_reports(folder / "failures"), exit_code=1)


def output_of_success(folder: Path, environment: dict[str, str], **own: str) -> str:
    """Run the stage until it succeeds, as a flow does, as long as its faults may pass."""
    for pause in (*PAUSES[Fault.NETWORK], None):  # until the cluster knows that a machine is gone
        stage = started(folder, environment, **own)
        output = stage.communicate(timeout=SECONDS)[0]
        if stage.returncode == 0:
            break
        assert fault(folder) is Fault.NETWORK and pause is not None, output
        time.sleep(pause)
    return output


def processes_of_the_stage(folder: Path) -> list[psutil.Process]:
    found = [one for one in psutil.process_iter(["cmdline"]) if (one.info["cmdline"] or [])[-2:] == ["-m", "two"]]
    return [one for one in found if one.cwd() == str(folder)]


def assert_learned_alike(folder: Path) -> None:
    alone, together = learned(folder, "alone"), learned(folder, "retrieval")
    assert alone.keys() == together.keys()
    for key, value in alone.items():
        assert torch.equal(value, together[key]), key


@pytest.mark.slow
def test_two_machines_learn_what_two_processes_of_one_do(folder: Path, environment: dict[str, str]) -> None:
    """Started while the second machine is still away; killed, machine and all; started again. Alike to the bit."""
    stage = started(folder, environment, CUDA_DEVICE_ORDER="PCI_BUS_ID")
    with second_machine(folder, environment) as second:
        assert stage.stdout is not None
        lines = []
        for line in stage.stdout:
            lines.append(line)
            if line.endswith("step retrieval 3\n"):  # behind the progress bar
                break
        assert lines[0] == "waiting for machines: 1 of 2 are in the cluster\n", "".join(lines)
        for one in second.children(recursive=True):
            one.kill()
        rest = stage.communicate(timeout=SECONDS)[0]
    assert stage.returncode == 1, rest
    assert "ConnectionError: a machine of the cluster was lost" in rest
    assert fault(folder) is Fault.NETWORK, "tried again, after pauses"
    assert not processes_of_the_stage(folder)
    with second_machine(folder, environment):
        output = output_of_success(folder, environment, CUDA_DEVICE_ORDER="PCI_BUS_ID")
    assert output.count("step retrieval") == 10
    assert_learned_alike(folder)
    ranks = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]
    where = {"LOCAL_RANK": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert ranks[0] == where | {"RANK": "0", "GROUP_RANK": "0", "HF_TOKEN": "planted"}
    assert ranks[1] == where | {"RANK": "1", "GROUP_RANK": "1", "HF_TOKEN": None}, "secrets stay on the first"


@pytest.mark.slow
def test_a_killed_stage_leaves_nothing_on_the_other_machine(folder: Path, environment: dict[str, str]) -> None:
    with second_machine(folder, environment):
        stage = started(folder, environment)
        assert stage.stdout is not None
        for line in stage.stdout:
            if line.endswith("step retrieval 3\n"):  # behind the progress bar
                break
        assert len(processes_of_the_stage(folder)) == 5, "who started it, two launchers, two processes"
        stage.send_signal(signal.SIGKILL)
        stage.communicate()
        wait_for(lambda: not processes_of_the_stage(folder), seconds=30)
        output_of_success(folder, environment)
    assert_learned_alike(folder)


@pytest.mark.slow
@pytest.mark.parametrize("rank", ["0", "1"])
def test_an_error_on_either_machine_is_printed_and_classified(
    folder: Path, environment: dict[str, str], rank: str
) -> None:
    """The fault is that of the process that failed, not of its peer, which only lost it."""
    with second_machine(folder, environment):
        stage = started(folder, environment, STILLHOUSE_BAD_RANK=rank)
        output = stage.communicate(timeout=SECONDS)[0]
    assert stage.returncode == 1
    assert f"[rank{rank}]: ValueError: bad data" in output
    assert fault(folder) is Fault.FINAL


@pytest.mark.slow
def test_the_cluster_ends_with_the_command_of_its_first_machine(environment: dict[str, str], tmp_path: Path) -> None:
    given = environment | {"RAY_PORT": str(free_port()), "RAY_TMPDIR": environment["RAY_TMPDIR"] + "/own"}
    given |= {"JOB_COMPLETION_INDEX": "0"}
    command = ["sh", str(SCRIPT_OF_A_MACHINE), "--machines=2", "echo", "said"]
    done = subprocess.run(command, cwd=tmp_path, env=given, capture_output=True, text=True, timeout=SECONDS)
    assert (done.returncode, done.stdout) == (0, "said\n"), done.stderr
    port = f"--gcs_server_port={given['RAY_PORT']}"
    wait_for(lambda: not [one for one in psutil.process_iter(["cmdline"]) if port in (one.info["cmdline"] or [])], 60)


@pytest.mark.slow
def test_the_cluster_asks_for_its_token(environment: dict[str, str]) -> None:
    done = subprocess.run(
        ["ray", "health-check", "--address", environment["RAY_ADDRESS"]],
        env={name: value for name, value in environment.items() if not name.startswith("RAY_AUTH")},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode != 0
    assert "Unauthenticated" in done.stdout + done.stderr


def test_processes_that_machines_cannot_share_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("STILLHOUSE_MACHINES", "2")
    with pytest.raises(ValueError, match=r"got STILLHOUSE_MACHINES 2, expected a divisor of engine.processes, 3"):
        launch(["stages.distill"], 3)


def test_machines_without_a_cluster_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("STILLHOUSE_MACHINES", "2")
    with pytest.raises(ConnectionError, match="got STILLHOUSE_MACHINES 2, but no RAY_ADDRESS"):
        launch(["stages.distill"], 4)
