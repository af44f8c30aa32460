"""Workspaces: each rebuild has a git worktree of its own, which shares the checkout's cache, stores and sources.

A rebuild never touches the checkout's files, so any number of rebuilds and a person's `dvc repro` run side by side.
They share DVC's cache, the teacher's vectors and the checkpoints, which all have locks, and MLflow's store.
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dvc.config import Config
from filelock import FileLock, Timeout

from flows.process_group import git
from stages.recipe.paths import CHECKPOINTS, MLFLOW, RECIPE, SOURCES, STATE, VECTORS

WORKSPACES = STATE / "workspaces"
LOCK = Path("dvc.lock")
# Folders and files of the checkout that a workspace uses through links.
SHARED_FOLDERS = (VECTORS, CHECKPOINTS, STATE / "profiles", Path("mlruns"))
MLFLOW_LOCK = STATE / "mlflow.lock"
SHARED_FILES = (MLFLOW_LOCK, MLFLOW)
BRANCHES, _HEADS = "retrain", "refs/heads/"
NUM_FAILED_KEPT = 5  # workspaces of failed rebuilds
KEEP = STATE / "kept"  # marks a workspace that waits for a sign-off
SIGNOFF_DAYS = 60  # a marked workspace is kept so long
# Files of a workspace are the commit's, byte by byte: DVC compares bytes, and scripts with other line ends do not run.
_BYTES = ("-c", "core.autocrlf=false", "-c", "core.eol=lf", "-c", "core.safecrlf=false")


@dataclass(frozen=True)
class Workspace:
    """The folder of a rebuild: a worktree of the repository in `home`, which started from `commit`."""

    home: Path
    folder: Path
    commit: str

    def git(self, *arguments: str) -> str:
        """Run git in the workspace and return its output."""
        return git(self.folder, *_BYTES, *arguments)

    def use_recipe(self, text: str, title: str) -> None:
        """Write a recipe to the workspace's params.yaml, and commit it where it differs, so that a commit names it."""
        (self.folder / RECIPE).write_text(text, encoding="utf-8")
        self._commit(RECIPE, title)

    def use_latest_lock(self) -> str:
        """Start from the newest dvc.lock of this recipe: the commit's, or that of an earlier rebuild's branch.

        The choice changes nothing but time, because DVC checks every entry against the files. Returns the lock's
        origin.
        """
        recipe = self.git("rev-parse", f"HEAD:{RECIPE}")
        branches = self.git("for-each-ref", "--format=%(refname)", f"{_HEADS}{BRANCHES}/").split()
        same = [one for one in branches if self._has(one, LOCK) and self._blob(one, RECIPE) == recipe]
        stamps = {one: self._changed(one) for one in (self.commit, *same)}
        newest = max(stamps, key=lambda one: stamps[one])
        if newest != self.commit:
            (self.folder / LOCK).write_text(self.git("cat-file", "blob", f"{newest}:{LOCK}") + "\n", encoding="utf-8")
        return newest.removeprefix(_HEADS)

    def lock(self) -> str:
        """Read dvc.lock; empty where there is none yet."""
        return (self.folder / LOCK).read_text(encoding="utf-8") if (self.folder / LOCK).is_file() else ""

    def _has(self, revision: str, file: Path) -> bool:
        return bool(self.git("ls-tree", "--name-only", revision, "--", str(file)))

    def _blob(self, revision: str, file: Path) -> str:
        return self.git("rev-parse", f"{revision}:{file}") if self._has(revision, file) else ""

    def _changed(self, revision: str) -> int:
        """Time of the last change of dvc.lock in a revision, in seconds since 1970; 0 where there was none."""
        last = self.git("rev-list", "-1", "--timestamp", revision, "--", str(LOCK))
        return int(last.partition(" ")[0] or 0)

    def has_remote(self) -> bool:
        """Tell whether DVC has a default remote, from which outputs that the cache lacks may come."""
        return "remote" in Config(dvc_dir=str(self.folder / ".dvc"))["core"]

    def commit_lock(self, branch: str) -> str:
        """Commit dvc.lock to a new branch, which then names recipe and lock of this rebuild, and return its name."""
        self._commit(LOCK, f"Retrain of {self.commit[:12]}")
        self.git("update-ref", f"{_HEADS}{branch}", "HEAD", "")
        return branch

    def try_branch(self) -> None:
        """Make a branch and delete it, so that what refuses the rebuild's own is known before any stage runs.

        Raises:
            ValueError: git makes no such branch; the message has its output.
        """
        branch = f"{_HEADS}{BRANCHES}/try-{self.folder.name}"
        try:
            commit = self.git("commit-tree", "-p", "HEAD", "-m", "Try", "HEAD^{tree}")
            self.git("update-ref", branch, commit, "")
            self.git("update-ref", "-d", branch)
        except RuntimeError as error:
            raise ValueError(f"{self.home} takes no branch {BRANCHES}/..., as a rebuild leaves one: {error}") from error

    def _commit(self, file: Path, title: str) -> None:
        """Commit a file if it differs, by git's plumbing: no setting signs, ignores or edits what it does."""
        self.git("update-index", "--add", "--", str(file))
        tree = self.git("write-tree")
        if tree != self.git("rev-parse", "HEAD^{tree}"):
            self.git("update-ref", "--no-deref", "HEAD", self.git("commit-tree", "-p", "HEAD", "-m", title, tree))

    def keep(self) -> None:
        """Keep the folder when the rebuild ends, because a sign-off reads its files."""
        (self.folder / KEEP).touch()


@contextmanager
def workspace(home: Path, name: str, revision: str) -> Iterator[Workspace]:
    """Make a workspace of a checkout; remove it when the block succeeds, unless `Workspace.keep` was called.

    Args:
        home: the checkout's root.
        name: unique name of the workspace.
        revision: branch, tag or commit; a remote's branch is fetched first.

    Raises:
        ValueError: the folder is no git checkout, has no such revision, or its cache cannot be written.
        RuntimeError: git failed; the message has its output.
    """
    commit = resolve_commit(home, revision)
    cache = cache_folder(home)
    if cache.exists() and not os.access(cache, os.W_OK):
        raise ValueError(f"DVC's cache {cache} cannot be written, so no stage's work would be kept; make it writable")
    (home / WORKSPACES).mkdir(parents=True, exist_ok=True)
    lock = home / WORKSPACES / f"{name}.lock"
    with FileLock(lock, thread_local=False):
        with cleaning(home):
            remove_old(home)
        made = Workspace(home, home / WORKSPACES / name, commit)
        git(home, *_BYTES, "worktree", "add", "--quiet", "--detach", str(made.folder), commit)
        _share(home, made.folder)
        _copy_sources(home, made.folder)
        yield made
        if not (made.folder / KEEP).exists():
            with cleaning(home):
                remove(home, made.folder)
            lock.unlink()


def cleaning(home: Path) -> FileLock:
    """Lock to hold while folders are removed, because two rebuilds may remove the same folder at once."""
    return FileLock(home / STATE / "cleaning.lock", thread_local=False)


def remove_old(home: Path) -> None:
    """Remove the workspaces of ended rebuilds, except for the newest few and those that wait for a sign-off."""
    folders = [one for one in (home / WORKSPACES).iterdir() if one.is_dir() and not _awaits_signoff(one)]
    for folder in sorted(folders, key=lambda one: one.stat().st_mtime)[: -NUM_FAILED_KEPT or None]:
        try:
            with FileLock(folder.with_name(f"{folder.name}.lock"), timeout=0):
                remove(home, folder)
                folder.with_name(f"{folder.name}.lock").unlink(missing_ok=True)
        except Timeout:
            continue  # its rebuild still runs


def remove(home: Path, folder: Path) -> None:
    """Delete a workspace, even where a killed rebuild had made or removed only half of it; shared files stay."""
    with suppress(RuntimeError):
        git(home, "worktree", "remove", "--force", "--force", str(folder))
    shutil.rmtree(folder, ignore_errors=True)
    git(home, "worktree", "prune")


def _awaits_signoff(folder: Path) -> bool:
    mark = folder / KEEP
    return mark.exists() and time.time() < mark.stat().st_mtime + SIGNOFF_DAYS * 86400


def resolve_commit(home: Path, revision: str) -> str:
    """Find the commit that a revision names in the checkout.

    Raises:
        ValueError: it is no git checkout, git refuses to work there, or there is no such commit.
    """
    if not (home / ".git").exists():
        raise ValueError(
            f"{home} is no git checkout; a rebuild starts from a commit: run `git init` and commit, or clone"
        )
    try:
        remotes = git(home, "remote").split()
    except RuntimeError as error:
        raise ValueError(f"git refuses to work in {home}; do what it says: {error}") from error
    remote = revision.partition("/")[0]
    if "/" in revision and remote in remotes:
        git(home, "fetch", "--quiet", remote)
    try:
        return git(home, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    except RuntimeError as error:
        raise ValueError(f"git_ref: {home} has no commit {revision!r}; push or fetch it, or name another") from error


def _share(home: Path, folder: Path) -> None:
    (folder / STATE).mkdir(exist_ok=True)
    for name in SHARED_FOLDERS:
        (home / name).mkdir(parents=True, exist_ok=True)
    for name in (*SHARED_FOLDERS, *SHARED_FILES):
        (folder / name).symlink_to(home / name)  # also to a file that does not exist yet
    _share_dvc(home, folder)


def _share_dvc(home: Path, folder: Path) -> None:
    """Give DVC in the workspace the checkout's cache, remotes and local settings, but locks and indexes of its own."""
    known = Config(dvc_dir=str(home / ".dvc"))
    with Config(dvc_dir=str(folder / ".dvc")).edit("local") as own:
        for section, values in known.load_one("local").items():
            own[section].update(values)
        own["remote"] = known["remote"]
        if "remote" in known["core"]:
            own["core"]["remote"] = known["core"]["remote"]
        own["cache"]["dir"] = str(cache_folder(home))
        own["core"]["site_cache_dir"] = str(folder / ".dvc/tmp/site")
    (folder / ".dvc/config.local").chmod(0o600)  # remotes may carry credentials


def cache_folder(home: Path) -> Path:
    """Folder of DVC's cache for a checkout or a workspace."""
    return Path(Config(dvc_dir=str(home / ".dvc"))["cache"].get("dir") or home / ".dvc/cache")


def _copy_sources(home: Path, folder: Path) -> None:
    """Copy the user's own files, which git does not track; later changes belong to the next rebuild."""
    listed = git(home, "ls-files", "--others", "-z", "--", str(SOURCES))
    for name in filter(None, listed.split("\0")):
        source, target = home / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():  # a linked folder or a repository of its own, whose files git does not list
            shutil.copytree(source, target, ignore=_left_out, copy_function=shutil.copyfile, dirs_exist_ok=True)
        elif source.is_file():
            shutil.copyfile(source, target)


def _left_out(folder: str, names: list[str]) -> set[str]:
    """Name what is no file or folder to copy: repositories' own folders, links that lead nowhere, sockets and pipes."""
    paths = {name: Path(folder, name) for name in names}
    return {name for name, path in paths.items() if name == ".git" or not (path.is_file() or path.is_dir())}
