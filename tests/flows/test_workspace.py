"""A rebuild's folder: what it shares with the checkout, what it starts from, and which recipes it takes."""

import logging
from pathlib import Path

import pytest

from flows import rebuild_recipe as recipe_module
from flows import workspace as workspace_module
from flows.rebuild_recipe import choose_recipe, halve_micro_batch, read_recipe
from flows.workspace import WORKSPACES, remove_old, workspace
from tests.flows.conftest import commit, git


def test_a_workspace_shares_stores_and_copies_sources(project: Path) -> None:
    Path(".dvc/config").write_text("['remote \"store\"']\n    url = ../../store\n[core]\n    remote = store\n")
    commit("remote")
    Path("data/sources/own.csv").write_text("a,b\n")  # git does not know it
    with workspace(project, "one", "HEAD") as space:
        assert space.folder == project / WORKSPACES / "one"
        assert (space.folder / "data/sources/own.csv").read_text() == "a,b\n"
        assert (space.folder / ".stillhouse/vectors").resolve() == project / ".stillhouse/vectors"
        assert (space.folder / "mlflow.db").is_symlink()
        settings = (space.folder / ".dvc/config.local").read_text()
        assert f"dir = {project}/.dvc/cache" in settings
        assert (space.folder / ".dvc/config.local").stat().st_mode & 0o077 == 0
        assert space.has_remote()
        assert space.git("status", "--porcelain") == ""
        (space.folder / "mlflow.db").write_text("written before the checkout had one")
    assert (project / "mlflow.db").read_text() == "written before the checkout had one"
    assert list((project / WORKSPACES).iterdir()) == []
    assert git("worktree", "list").count("\n") == 0


def test_a_remote_folder_beside_the_checkout_stays_the_same_folder(project: Path) -> None:
    from dvc.config import Config

    Path(".dvc/config").write_text("['remote \"store\"']\n    url = ../../store\n[core]\n    remote = store\n")
    commit("remote")
    with workspace(project, "one", "HEAD") as space:
        own = Config(dvc_dir=str(space.folder / ".dvc"))
        assert Path(own["remote"]["store"]["url"]) == project.parent / "store"


def test_stages_of_all_workspaces_record_under_one_lock(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from filelock import FileLock, Timeout

    from stages.tracking.recorder import store_lock

    with workspace(project, "one", "HEAD") as space:
        monkeypatch.chdir(space.folder)
        with store_lock(), pytest.raises(Timeout), FileLock(project / ".stillhouse/mlflow.lock", timeout=0):
            raise AssertionError("the checkout's own stage would write at the same time")


def test_only_the_newest_workspaces_of_ended_rebuilds_are_kept(project: Path) -> None:
    for number in range(7):
        with pytest.raises(KeyError), workspace(project, f"failed-{number}", "HEAD"):
            raise KeyError
    with workspace(project, "running", "HEAD"):
        remove_old(project)
        kept = sorted(one.name for one in (project / WORKSPACES).iterdir() if one.is_dir())
    assert len(kept) == 5
    assert "running" in kept


def test_what_a_killed_rebuild_left_of_its_folder_is_removed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while git made it, so that git has it locked, and killed while git removed it."""
    for name in ("half-made", "half-removed"):
        with pytest.raises(KeyError), workspace(project, name, "HEAD"):
            raise KeyError
    monkeypatch.setattr(workspace_module, "NUM_FAILED_KEPT", 0)
    (project / ".git/worktrees/half-made/locked").write_text("initializing")
    (project / WORKSPACES / "half-removed/.git").unlink()
    with workspace(project, "next", "HEAD"):
        assert [one.name for one in (project / WORKSPACES).iterdir() if one.is_dir()] == ["next"]
    assert git("worktree", "list").count("\n") == 0


def test_a_folder_that_a_sign_off_looks_at_is_left(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace_module, "NUM_FAILED_KEPT", 0)
    with workspace(project, "asked", "HEAD") as space:
        space.keep()
    remove_old(project)
    assert space.folder.is_dir()
    monkeypatch.setattr(workspace_module, "SIGNOFF_DAYS", 0)
    remove_old(project)
    assert not space.folder.is_dir()


def test_a_remote_that_is_not_committed_yet_is_the_workspaces_too(project: Path) -> None:
    Path(".dvc/config").write_text("['remote \"store\"']\n    url = ../../store\n[core]\n    remote = store\n")
    with workspace(project, "one", "HEAD") as space:
        assert space.has_remote()


def test_folders_among_the_sources_that_are_links_or_repositories_are_copied(project: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk/rows.csv").write_text("a\n")
    Path("data/sources/linked").symlink_to(tmp_path / "disk")
    git("init", "--quiet", "data/sources/cloned")
    Path("data/sources/cloned/rows.csv").write_text("b\n")
    with workspace(project, "one", "HEAD") as space:
        assert (space.folder / "data/sources/linked/rows.csv").read_text() == "a\n"
        assert (space.folder / "data/sources/cloned/rows.csv").read_text() == "b\n"
        assert not (space.folder / "data/sources/cloned/.git").exists()


def test_the_newest_lock_of_the_same_recipe_is_taken(project: Path) -> None:
    with workspace(project, "one", "HEAD") as space:
        assert space.use_latest_lock() == space.commit
        assert space.lock() == ""
        assert not space.has_remote()
        (space.folder / "dvc.lock").write_text("first\n")
        space.commit_lock("retrain/one")
    with workspace(project, "two", "HEAD") as space:
        assert space.use_latest_lock() == "retrain/one"
        assert space.lock() == "first\n"
    with workspace(project, "three", "HEAD") as space:
        space.use_recipe("name: other\n", "Recipe other")
        assert space.use_latest_lock() == space.commit


def test_an_unknown_commit_and_a_folder_without_git_are_refused(project: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="has no commit 'nowhere'; push or fetch it"),
        workspace(project, "a", "nowhere"),
    ):
        raise AssertionError
    with pytest.raises(ValueError, match="is no git checkout"), workspace(tmp_path, "a", "HEAD"):
        raise AssertionError


@pytest.mark.parametrize(
    ("recipe", "text", "message"),
    [
        ("missing.yaml", None, "has no file 'missing.yaml'; commit it, or correct git_ref"),
        ("../../../params.yaml", None, "leads out of the workspace; name a file of the commit"),
        ("wrong.yaml", "nmae: tiny\n", r"error: wrong\.yaml: name: missing"),
        ("spy.yaml", "name: spy\nembed: {teacher: {path: /etc}}\n", r"embed\.teacher\.path: '/etc' leads out"),
    ],
)
def test_a_recipe_that_is_wrong_or_reads_elsewhere_is_refused(
    project: Path, recipe: str, text: str | None, message: str
) -> None:
    if text is not None:
        Path(recipe).write_text(text)
        commit("recipe")
    with pytest.raises(ValueError, match=message), workspace(project, "one", "HEAD") as space:
        choose_recipe(space, recipe)


def test_a_chosen_recipe_is_committed_so_that_a_commit_names_it(project: Path) -> None:
    Path("other.yaml").write_text("name: other\n")
    commit("recipe")
    with workspace(project, "one", "HEAD") as space:
        choose_recipe(space, "other.yaml")
        assert space.git("show", "HEAD:params.yaml") == "name: other"
        assert space.git("rev-parse", "HEAD~1") == space.commit
        choose_recipe(space, None)
        assert space.git("rev-parse", "HEAD~1") == space.commit


def test_smaller_pieces_are_written_into_the_recipe_until_no_text_would_fit(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe_module, "get_run_logger", lambda: logging.getLogger("recipe"))
    with workspace(project, "one", "HEAD") as space:
        assert halve_micro_batch(space)
        assert read_recipe(space)["engine"] == {"processes": 1, "micro_batch_tokens": 2048}
        assert "micro_batch_tokens: 2048}  # kept" in space.git("show", "HEAD:params.yaml")
        assert [halve_micro_batch(space) for _ in range(4)] == [True, True, True, False]
        assert read_recipe(space)["engine"]["micro_batch_tokens"] == 256
