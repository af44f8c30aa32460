"""What a command started is gone when it is stopped, and when whoever started it is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flows import process_group as processes
from flows import process_guard as guard

# Starts a child in a session of its own that ignores polite signals, says both numbers, and lasts.
STUBBORN = """
import os, subprocess, sys, time
child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
process = subprocess.Popen([sys.executable, "-c", child], start_new_session=True, stdout=subprocess.PIPE)
process.stdout.readline()
print(os.getpid(), process.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "GUARD", (sys.executable, "-c", QUICK))


QUICK = f"""
import runpy, sys
sys.argv = [{guard.__file__!r}, *sys.argv[1:]]
import importlib.util
spec = importlib.util.spec_from_file_location("guard", {guard.__file__!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.TERM_SECONDS = 0.2
sys.exit(module.main(sys.argv[1:]))
"""


def ended(pid: int) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


def test_a_command_gives_its_output_and_its_exit_code(tmp_path: Path) -> None:
    with processes.guarded(["sh", "-c", "pwd; exit 3"], tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.read().strip() == str(tmp_path)
        assert process.wait() == 3


def test_a_signal_is_told_as_a_shell_tells_it(tmp_path: Path) -> None:
    with processes.guarded(["sh", "-c", "kill -9 $$"], tmp_path) as process:
        assert process.wait() == 137


def test_leaving_ends_a_child_that_left_the_session_and_ignores_signals(tmp_path: Path) -> None:
    with processes.guarded([sys.executable, "-c", STUBBORN], tmp_path) as process:
        assert process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        assert not any(map(ended_now, pids))
    assert all(map(ended, pids))


def ended_now(pid: int) -> bool:
    return not psutil.pid_exists(pid)


def test_an_orphan_of_a_command_that_ended_by_itself_is_ended_too(tmp_path: Path) -> None:
    with processes.guarded(["sh", "-c", "setsid sleep 600 > /dev/null 2>&1 & echo $!"], tmp_path) as process:
        assert process.stdout is not None
        orphan = int(process.stdout.readline())
        assert process.wait() == 0
    assert ended(orphan)


def test_kill_9_of_the_starter_ends_all(tmp_path: Path) -> None:
    starter = (
        "import sys; from flows import processes; from pathlib import Path\n"
        f"with processes.guarded([sys.executable, '-c', {STUBBORN!r}], Path('.')) as process:\n"
        "    print(process.stdout.readline(), flush=True); process.wait()"
    )
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    process = subprocess.Popen([sys.executable, "-c", starter], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    pids = [int(word) for word in process.stdout.readline().split()]
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert all(map(ended, pids))


def test_nothing_starts_once_the_rebuild_has_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "STOP", processes.threading.Event())
    with processes.guarded(["sleep", "600"], tmp_path) as process:
        processes.stop_all()
        assert ended(process.pid)
    with pytest.raises(processes.Stopped, match="not started"), processes.guarded(["true"], tmp_path):
        raise AssertionError


def test_what_ends_a_rebuild_early_stops_the_stages_first(tmp_path: Path) -> None:
    try:
        with (
            pytest.raises(ValueError, match="early"),
            processes.stopping_all(),
            processes.guarded(["sleep", "600"], tmp_path) as process,
        ):
            raise ValueError("early")
        assert ended(process.pid)
        assert processes.STOP.is_set()
    finally:
        processes.STOP.clear()


def test_a_short_command_that_fails_says_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"failed with exit code 4 in .*:\nbad luck"):
        processes.output(["sh", "-c", "echo bad luck >&2; exit 4"], tmp_path)
