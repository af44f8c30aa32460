"""What a rebuild sends away: outputs to DVC's remote first, then the branch that names them."""

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from flows.pipeline import DVC
from flows.process_group import guarded, output
from flows.stage_task import lines_of
from flows.workspace import BRANCHES, Workspace

PAUSES = [10.0, 30.0, 60.0]  # seconds: a remote that is away for a while


@task(name="push", task_run_name="push", cache_policy=NO_CACHE, retries=len(PAUSES), retry_delay_seconds=PAUSES)
def push_outputs(space: Workspace) -> None:
    """Send the outputs and DVC's run cache to the default remote.

    Raises:
        RuntimeError: DVC failed, also because there is no remote; its log says why.
    """
    logger, lines = get_run_logger(), []
    with guarded([*DVC, "push", "--run-cache"], space.folder) as process:
        for line in lines_of(process):
            logger.info("%s", line)
            lines.append(line)
        code = process.wait()
    if code:
        raise RuntimeError("\n".join([f"`dvc push` failed with exit code {code}:", *lines[-5:]]))


def push_branch(space: Workspace, branch: str | None) -> None:
    """Send the rebuild's branch, if it made one, to `origin`, where the repository has one.

    Raises:
        RuntimeError: git failed; with what it said.
    """
    if branch is None:
        return
    if has_origin(space):
        output(["git", "push", "--quiet", "origin", branch], space.folder)
    else:
        get_run_logger().info("git has no remote `origin`: branch %s stays here", branch)


def check_remotes(space: Workspace) -> None:
    """Find out before any stage runs whether what is made can be sent away.

    Raises:
        ValueError: DVC has no default remote, or git's `origin` takes no branch.
    """
    if not space.has_remote():
        raise ValueError("push: DVC has no default remote; `dvc remote add --default NAME PLACE`, or leave push out")
    if has_origin(space):
        try:
            output(["git", "push", "--quiet", "--dry-run", "origin", f"HEAD:refs/heads/{BRANCHES}/try"], space.folder)
        except RuntimeError as error:
            raise ValueError(f"push: git's `origin` takes no branch from here: {error}") from error


def has_origin(space: Workspace) -> bool:
    """Whether git has a remote of that name."""
    return "origin" in space.git("remote").split()
