"""What counts as a clean commit: the files and git's own record of them, whatever a person has told git."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.tracking.git import git_state


def git(*arguments: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The commit of a project in the working folder."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    git("init", "--quiet")
    Path("stage.py").write_text("a")
    Path(".gitignore").write_text("/data\n")
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    return git("rev-parse", "HEAD")


def hide_new_files() -> None:
    git("config", "status.showUntrackedFiles", "no")
    Path("new.py").write_text("b")


def ignore_elsewhere() -> None:
    Path("../ignored").write_text("*.py\n")
    git("config", "core.excludesFile", os.path.abspath("../ignored"))
    Path("new.py").write_text("b")


def ignore_in_git_s_folder() -> None:
    Path(".git/info/exclude").write_text("*.py\n")
    Path("new.py").write_text("b")


def watch() -> None:
    """A monitor of the file system that says that nothing changed."""
    Path(".git/monitor").write_text("#!/bin/sh\nprintf 'token\\0'\n")
    Path(".git/monitor").chmod(0o755)
    git("config", "core.fsmonitor", os.path.abspath(".git/monitor"))
    git("update-index", "--fsmonitor")
    git("status")
    Path("stage.py").write_text("b")


def mark(how: str) -> Callable[[], None]:
    def marked() -> None:
        git("update-index", how, "stage.py")
        Path("stage.py").write_text("b")

    return marked


def name_in_another_encoding() -> None:
    git("config", "status.showUntrackedFiles", "no")
    git("config", "core.quotePath", "false")
    Path(os.fsdecode(b"caf\xe9.py")).write_text("b")


def filter_elsewhere() -> None:
    Path("../attributes").write_text("*.py filter=same\n")
    git("config", "core.attributesFile", os.path.abspath("../attributes"))
    git("config", "filter.same.clean", "printf a")
    Path("stage.py").write_text("b")


@pytest.mark.parametrize(
    "hide",
    [
        *(hide_new_files, ignore_elsewhere, ignore_in_git_s_folder, watch, filter_elsewhere, name_in_another_encoding),
        *(mark("--assume-unchanged"), mark("--skip-worktree")),
    ],
)
def test_what_a_person_hides_from_git_is_not_clean(committed: str, hide: Callable[[], None]) -> None:
    assert git_state() == (committed, False)
    hide()
    assert git("status", "--porcelain") == "", "git itself would say that nothing changed"
    assert git_state() == (committed, True)


def test_a_file_s_mode_and_what_the_project_ignores_are_no_change(committed: str) -> None:
    Path("stage.py").chmod(0o755)
    Path("data").mkdir()
    Path("data/rows").write_text("a")
    assert git_state() == (committed, False)


def test_the_commit_is_that_of_the_working_folder(committed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("../other").mkdir()
    git("init", "--quiet", "../other")
    monkeypatch.setenv("GIT_DIR", os.path.abspath("../other/.git"))
    monkeypatch.setenv("GIT_INDEX_FILE", os.path.abspath("../other/.git/index"))
    assert git_state() == (committed, False)


def test_a_project_inside_of_another_repository_has_no_commit(committed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unpacked into the ignored folder of a repository, whose commit says nothing about it."""
    Path("data/project").mkdir(parents=True)
    monkeypatch.chdir("data/project")
    Path("stage.py").write_text("b")
    assert git_state() == (None, None)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_in_a_checkout_of_another_owner_nothing_is_known(committed: str) -> None:
    for file in (Path.cwd(), *Path().rglob("*")):
        os.chown(file, 12345, 12345)
    assert git_state() == (None, None)
