"""The commit of the working folder."""

import subprocess


def git_state() -> tuple[str | None, bool | None]:
    """Return the commit of the working folder, and whether its files differ from it; None, None without a commit.

    dvc.lock does not count: every build rewrites it, stage by stage.
    """
    try:
        commit = _git("rev-parse", "HEAD")
        changes = _git("status", "--porcelain", "--", ".", ":(exclude)dvc.lock")
    except (OSError, subprocess.CalledProcessError):
        return None, None
    return commit, bool(changes)


def _git(*arguments: str) -> str:
    command = ["git", "--no-optional-locks", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
