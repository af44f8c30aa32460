"""Send a rebuild away: first the outputs to DVC's remote, then the branch that names them to git's remote."""

from contextlib import suppress

from dvc.repo import Repo
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from flows.pipeline import DVC
from flows.process_group import guarded
from flows.stage_task import lines_of
from flows.workspace import BRANCHES, Workspace
from stages.recipe.paths import RECIPE
from stages.recipe.process_environment import dvc_environment
from stages.recipe.redaction import redacted

PAUSES = [10.0, 30.0, 60.0]  # seconds between attempts, for a remote that is away for a while


@task(name="push", task_run_name="push", cache_policy=NO_CACHE, retries=len(PAUSES), retry_delay_seconds=PAUSES)
def push_outputs(space: Workspace) -> None:
    """Send the outputs and DVC's run cache to the default remote.

    Raises:
        RuntimeError: DVC failed, for example because there is no remote; the message has the end of its log.
    """
    logger, lines = get_run_logger(), []
    with guarded([*DVC, "push", "--run-cache"], space.folder, dvc_environment()) as process:
        for line in lines_of(process):
            logger.info("%s", line)
            lines.append(line)
        code = process.wait()
    if code:
        raise RuntimeError("\n".join([f"`dvc push` failed with exit code {code}:", *lines[-5:]]))


def push_branch(space: Workspace, branch: str | None) -> None:
    """Send the rebuild's branch, if there is one, to `origin`, if the repository has that remote.

    Raises:
        RuntimeError: git failed; the message has its output.
    """
    if branch is None:
        return
    if has_origin(space):
        _push(space, f"refs/heads/{branch}")
    else:
        get_run_logger().info("git has no remote `origin`: branch %s stays here", branch)


def check_remotes(space: Workspace) -> None:
    """Check before any stage runs that outputs and branch can be sent away: send a file and a branch, and delete them.

    A dry run would not ask the server's hooks and rules for branches.

    Raises:
        ValueError: DVC has no default remote, or none that takes files; or git's `origin` refuses branches from here.
    """
    if not space.has_remote():
        raise ValueError("push: DVC has no default remote; `dvc remote add --default NAME PLACE`, or leave push out")
    try:
        with Repo(str(space.folder)) as repo:
            remote = repo.cloud.get_remote()
        file = remote.fs.join(remote.path, f"try-{space.folder.name}")
        remote.fs.makedirs(remote.path, exist_ok=True)
        remote.fs.put_file(str(space.folder / RECIPE), file)
    except Exception as error:
        raise ValueError(f"push: DVC's remote takes no file from here: {redacted(str(error))}") from error
    with suppress(Exception):  # some servers let nobody delete a file
        remote.fs.rm_file(file)
    branch = f"{BRANCHES}/try-{space.folder.name}"
    if has_origin(space):
        try:
            _push(space, f"HEAD:refs/heads/{branch}")
        except RuntimeError as error:
            raise ValueError(f"push: git's `origin` takes no branch from here: {error}") from error
        try:
            _push(space, f":refs/heads/{branch}")
        except RuntimeError as error:  # some servers let nobody delete a branch
            get_run_logger().warning("git's `origin` keeps the branch %s, sent to try it: %s", branch, error)


def _push(space: Workspace, refspec: str) -> None:
    """Push to `origin` without hooks, also where it is a mirror."""
    space.git("-c", "remote.origin.mirror=false", "push", "--quiet", "origin", refspec)


def has_origin(space: Workspace) -> bool:
    """Tell whether git has a remote called `origin`."""
    return "origin" in space.git("remote").split()
