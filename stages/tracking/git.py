"""The commit of the working folder."""

import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from stages.recipe.process_environment import git_environment

_LOOKED_AT = ("--", ".", ":(exclude)dvc.lock")


def git_state() -> tuple[str | None, bool | None]:
    """Return the commit of the working folder, and whether its files differ from it; None, None where git cannot say.

    dvc.lock does not count: every build rewrites it, stage by stage. Neither a person's settings nor marks such as
    `assume-unchanged` in the index hide a change; only the repository's own .gitignore does.
    """
    try:
        with TemporaryDirectory() as folder:
            index = Path(folder) / "index"
            commit = _git(index, "rev-parse", "--verify", "HEAD")
            _git(index, "rev-parse", "--verify", "HEAD:./")  # else the commit is of a repository around the project
            _git(index, "read-tree", "HEAD")
            changed = _git(index, "status", "--porcelain", "-uno", "--ignore-submodules=none", *_LOOKED_AT)
            new = _git(index, "ls-files", "--others", "--exclude-per-directory=.gitignore", *_LOOKED_AT)
    except (OSError, subprocess.CalledProcessError):
        return None, None
    return commit, bool(changed or new)


def _git(index: Path, *arguments: str) -> str:
    command, environment = ["git", *arguments], git_environment(GIT_INDEX_FILE=str(index))
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, errors="replace")
    return done.stdout.strip()
