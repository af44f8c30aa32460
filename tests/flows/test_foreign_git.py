"""A rebuild's own git: what a hook hands down, how a person likes git, and who owns the checkout change nothing."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from flows.pipeline import read_pipeline
from flows.process_group import git as flow_git
from flows.pushing import check_remotes, push_branch
from flows.workspace import BRANCHES, Workspace, workspace
from tests.flows.conftest import ROOT, commit, git

LOCK = "retrain/one"
# What people have in their configuration, each of which changed a commit, a worktree or an answer of git.
HABITS = {
    "commit.gpgSign": "true",
    "gpg.program": "/nowhere/gpg",
    "log.showSignature": "true",
    "commit.template": "/nowhere/template",
    "commit.cleanup": "strip",
    "core.hooksPath": "hooks",
    "core.fsmonitor": "/nowhere/monitor",
    "core.excludesFile": "ignored",
    "core.attributesFile": "attributes",
    "core.autocrlf": "true",
    "core.safecrlf": "true",
    "core.quotePath": "true",
    "core.sparseCheckout": "true",
    "status.showUntrackedFiles": "no",
    "diff.noprefix": "true",
    "diff.external": "/nowhere/diff",
    "color.ui": "always",
    "push.default": "nothing",
    "push.gpgSign": "true",
    "push.followTags": "true",
    "push.pushOption": "x",
    "pull.rebase": "true",
    "branch.autoSetupMerge": "always",
    "submodule.recurse": "true",
    "user.useConfigOnly": "true",
    "i18n.commitEncoding": "latin1",
    "feature.manyFiles": "true",
}


@pytest.fixture
def person(tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project of a person with habits: settings, hooks that fail, a list of ignored files."""
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in ("post-checkout", "pre-commit", "commit-msg", "post-commit", "reference-transaction", "pre-push"):
        (hooks / name).write_text("#!/bin/sh\nexit 1\n")
        (hooks / name).chmod(0o755)
    (tmp_path / "ignored").write_text("*.lock\n*.yaml\n*.py\n")
    (tmp_path / "attributes").write_text("* text eol=crlf\n")
    (tmp_path / "gitconfig").write_text("[safe]\n    bareRepository = explicit\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    for key, value in HABITS.items():
        git("config", key, str(tmp_path / value) if (tmp_path / value).exists() else value)
    return project


def retrained(space: Workspace) -> str:
    """Do what a rebuild does to git: a recipe of its own, a new dvc.lock, a branch."""
    space.try_branch()
    space.use_recipe("name: other\n", "Recipe other")
    assert space.use_latest_lock() == space.commit
    (space.folder / "dvc.lock").write_text("first\n")
    return space.commit_lock(LOCK)


def plain(*arguments: str) -> str:
    """Git's answer without colours and signatures, and without anybody's hooks."""
    without = ("color.ui=false", "log.showSignature=false", f"core.hooksPath={os.devnull}")
    options = [word for setting in without for word in ("-c", setting)]
    return subprocess.run(["git", *options, *arguments], check=True, capture_output=True, text=True).stdout


def test_a_persons_settings_and_hooks_have_no_say(person: Path) -> None:
    with workspace(person, "one", "HEAD") as space:
        assert (space.folder / "retrieval.sh").read_bytes() == b"true\n"
        retrained(space)
        assert space.use_latest_lock() == LOCK
    assert plain("show", f"{LOCK}:dvc.lock") == "first\n"
    assert plain("log", "-2", "--format=%an %G? %s", LOCK).splitlines() == [
        f"stillhouse rebuild N Retrain of {space.commit[:12]}",
        "stillhouse rebuild N Recipe other",
    ]
    assert plain("worktree", "list").count("\n") == 1
    assert f"try-{space.folder.name}" not in plain("branch", "--list")


def test_dvc_takes_a_lock_that_a_persons_list_ignores(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ignored").write_text("*.lock\n")
    (tmp_path / "gitconfig").write_text(f"[core]\n    excludesFile = {tmp_path}/ignored\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    with workspace(project, "one", "HEAD") as space:
        (space.folder / "dvc.lock").write_text("schema: '2.0'\n")
        assert read_pipeline(space.folder, has_remote=False)


def test_a_persons_settings_do_not_stop_a_push(person: Path, tmp_path: Path) -> None:
    plain("init", "--quiet", "--bare", str(tmp_path / "origin"))
    plain("remote", "add", "--mirror=push", "origin", str(tmp_path / "origin"))
    with workspace(person, "one", "HEAD") as space:
        retrained(space)
        push_branch(space, LOCK)
    assert plain("--git-dir", str(tmp_path / "origin"), "for-each-ref", "--format=%(refname)").split() == [
        f"refs/heads/{LOCK}"
    ]


@pytest.mark.parametrize("linked", [False, True])
def test_what_a_hook_hands_down_does_not_lead_a_rebuild_astray(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linked: bool
) -> None:
    home = project
    if linked:
        home = tmp_path / "linked"
        git("worktree", "add", "--quiet", "-b", "work", str(home))
        monkeypatch.chdir(home)
    before = git("rev-parse", "HEAD"), git("status", "--porcelain")
    folder = git("rev-parse", "--absolute-git-dir")
    for name, value in {"GIT_DIR": folder, "GIT_INDEX_FILE": f"{folder}/index", "GIT_WORK_TREE": str(home)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GIT_PREFIX", "")
    monkeypatch.setenv("GIT_AUTHOR_DATE", "@0 +0000")
    monkeypatch.setenv("GIT_LITERAL_PATHSPECS", "1")
    with workspace(home, "one", "HEAD") as space:
        retrained(space)
        assert space.git("rev-parse", "--show-toplevel") == str(space.folder)
    for name in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE", "GIT_PREFIX"):
        monkeypatch.delenv(name)
    assert (git("rev-parse", "HEAD"), git("status", "--porcelain")) == before
    assert git("show", f"{LOCK}:dvc.lock") == "first"


def test_a_rebuild_in_a_hook_does_not_start_the_hook_again(project: Path, tmp_path: Path) -> None:
    script = (
        "from pathlib import Path\nfrom flows.workspace import workspace\n"
        "with workspace(Path.cwd(), 'one', 'HEAD') as space:\n"
        "    (space.folder / 'dvc.lock').write_text('first\\n')\n    space.commit_lock('retrain/one')\n"
    )
    (tmp_path / "script.py").write_text(script)
    hook = project / ".git/hooks/post-commit"
    hook.write_text(
        f"#!/bin/sh\necho once >> {tmp_path}/ran\n"
        f"PYTHONPATH={ROOT} {sys.executable} {tmp_path}/script.py >> {tmp_path}/said 2>&1\n"
    )
    hook.chmod(0o755)
    Path("figures.json").write_text("{}")
    commit("two")
    assert (tmp_path / "ran").read_text() == "once\n"
    assert git("log", "-1", "--format=%s") == "two"
    assert git("log", "-1", "--format=%s", LOCK).startswith("Retrain of"), (tmp_path / "said").read_text()


def test_a_setting_in_the_environment_is_kept_where_it_says_nothing_else(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"COUNT": "2", "KEY_0": "a.b", "VALUE_0": "c", "KEY_1": "core.hooksPath", "VALUE_1": "hooks"}
    for name, value in given.items():
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    assert flow_git(project, "config", "a.b") == "c"
    assert flow_git(project, "config", "core.hooksPath") == os.devnull


def test_a_branch_that_cannot_be_made_is_refused_before_any_stage_runs(project: Path) -> None:
    git("branch", BRANCHES)  # then there is no room for branches below it
    with (
        pytest.raises(ValueError, match=r"takes no branch retrain/\.\.\., as a rebuild leaves one(?s:.)*'refs/h"),
        workspace(project, "one", "HEAD") as space,
    ):
        space.try_branch()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_checkout_of_another_owner_is_refused_in_gits_words(project: Path) -> None:
    for file in (project, *project.rglob("*")):
        os.chown(file, 12345, 12345)
    with (
        pytest.raises(ValueError, match=r"git refuses to work in (?s:.)*dubious ownership(?s:.)*safe\.directory"),
        workspace(project, "one", "HEAD"),
    ):
        raise AssertionError


def test_links_that_lead_nowhere_and_sockets_among_the_sources_are_left_out(project: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk/rows.csv").write_text("a\n")
    for folder in (Path("data/sources"), tmp_path / "disk"):
        (folder / ".#faq.csv").symlink_to("me@host.123:456")
        os.mkfifo(folder / "pipe")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(os.path.relpath(folder / "socket"))
        listener.close()
    Path("data/sources/linked").symlink_to(tmp_path / "disk")
    other = os.fsdecode(b"caf\xe9.csv")
    Path("data/sources", other).write_text("b\n")
    with workspace(project, "one", "HEAD") as space:
        found = {str(path.relative_to(space.folder)) for path in space.folder.glob("data/sources/**/*")}
    assert found == {f"data/sources/{name}" for name in ("linked", "linked/rows.csv", other, "source.txt")}


def test_sources_on_another_disk_are_copied(project: Path, tmp_path: Path) -> None:
    shutil.move("data/sources", tmp_path / "disk")
    Path("data/sources").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/own.csv").write_text("b\n")
    with workspace(project, "one", "HEAD") as space:
        assert (space.folder / "data/sources/own.csv").read_text() == "b\n"
        assert (space.folder / "data/sources/source.txt").read_text() == "good\n"


def test_a_server_that_refuses_such_branches_or_files_is_found_before_any_stage_runs(
    project: Path, tmp_path: Path
) -> None:
    (tmp_path / "store").write_text("a file where DVC needs a folder")
    Path(".dvc/config").write_text(f"['remote \"store\"']\n    url = {tmp_path}/store\n[core]\n    remote = store\n")
    origin = tmp_path / "origin"
    git("init", "--quiet", "--bare", str(origin))
    git("remote", "add", "origin", str(origin))
    update = origin / "hooks/update"
    update.write_text("#!/bin/sh\ncase $1 in refs/heads/retrain/*) echo protected >&2; exit 1;; esac\n")
    update.chmod(0o755)
    with workspace(project, "one", "HEAD") as space:
        with pytest.raises(ValueError, match=r"push: DVC's remote takes no file from here: .*/store"):
            check_remotes(space)
        (tmp_path / "store").unlink()
        with pytest.raises(ValueError, match=r"push: git's `origin` takes no branch from here(?s:.)*protected"):
            check_remotes(space)
        update.unlink()
        check_remotes(space)
    assert git("ls-remote", "origin") == ""
    assert list((tmp_path / "store").iterdir()) == []
