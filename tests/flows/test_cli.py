"""The command `stillhouse`: it answers at once, describes everything it takes, and explains faults in a line or two."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from cyclopts import App

from flows.cli import COMMANDS, app

ROOT = Path(__file__).resolve().parents[2]


def stillhouse(*arguments: str, folder: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    """Run the command in a folder, with the code of this repository."""
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_lists_every_command_within_half_a_second() -> None:
    seconds = []
    for _ in range(3):
        before = cpu_seconds()
        process = stillhouse("--help")
        seconds.append(cpu_seconds() - before)
    assert process.returncode == 0
    assert process.stderr == ""
    for name, (_, sentence) in COMMANDS.items():
        assert name in process.stdout
        assert sentence in process.stdout
    assert min(seconds) < 0.5


def test_help_imports_no_stage() -> None:
    program = (
        "import sys, flows.cli; print([name for name in sys.modules if name.split('.')[0] in ('stages', 'prefect')])"
    )
    shown = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert shown == "[]\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_exists_and_describes_what_it_takes(name: str) -> None:
    command: App = app[name]
    assert command.default_command is not None
    for argument in command.assemble_argument_collection(parse_docstring=True):
        if argument.name != "*":  # a group, whose members are listed too
            assert argument.parameter.help, f"{name} {argument.name}"


@pytest.mark.parametrize(
    ("arguments", "first", "second"),
    [
        (["chek"], "error: got the unknown command 'chek', expected check", "run `stillhouse --help` for"),
        (["check", "--foo"], "error: Unknown option: --foo.", "run `stillhouse check --help` for"),
        (["rebuild", "--stage-hours", "long"], "error: Invalid value", "run `stillhouse rebuild --help` for"),
    ],
)  # fmt: skip
def test_a_mistyped_command_is_two_lines_and_status_2(arguments: list[str], first: str, second: str) -> None:
    process = stillhouse(*arguments)
    assert process.returncode == 2
    lines = process.stderr.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(first)
    assert lines[1].startswith(second)


def test_a_faulty_recipe_is_a_line_for_each_fault_and_status_1(tmp_path: Path) -> None:
    recipe = (ROOT / "params.yaml").read_text(encoding="utf-8").replace("seed: 17\n", "sead: 17\n", 1)
    (tmp_path / "params.yaml").write_text(recipe, encoding="utf-8")
    process = stillhouse("check", folder=tmp_path)
    assert process.returncode == 1
    assert "params.yaml: sead: unknown key" in process.stderr
    assert len(process.stderr.splitlines()) == 2  # the other one: seed is missing
    assert not (tmp_path / "data").exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    process = stillhouse("check", "other.yaml", folder=tmp_path)
    assert process.returncode == 1
    assert process.stderr.startswith("error: other.yaml: there is no such file in ")


def test_a_recipe_is_checked() -> None:
    process = stillhouse("check", "deploy/recipes/nano.yaml")
    assert process.returncode == 0
    assert process.stdout == "deploy/recipes/nano.yaml: recipe stillhouse-nano is valid\n"
