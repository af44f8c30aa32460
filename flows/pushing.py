"""Send a rebuild away: first the outputs to DVC's remote, then the branch that names them to git's remote."""

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from flows.pipeline import DVC
from flows.process_group import guarded, output
from flows.stage_task import lines_of
from flows.workspace import BRANCHES, Workspace

PAUSES = [10.0, 30.0, 60.0]  # seconds between attempts, for a remote that is away for a while


@task(name="push", task_run_name="push", cache_policy=NO_CACHE, retries=len(PAUSES), retry_delay_seconds=PAUSES)
def push_outputs(space: Workspace) -> None:
    """Send the outputs and DVC's run cache to the default remote.

    Raises:
        RuntimeError: DVC failed, for example because there is no remote; the message has the end of its log.
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
    """Send the rebuild's branch, if there is one, to `origin`, if the repository has that remote.

    Raises:
        RuntimeError: git failed; the message has its output.
    """
    if branch is None:
        return
    if has_origin(space):
        output(["git", "push", "--quiet", "origin", branch], space.folder)
    else:
        get_run_logger().info("git has no remote `origin`: branch %s stays here", branch)


def check_remotes(space: Workspace) -> None:
    """Check before any stage runs that outputs and branch can be sent away.

    Raises:
        ValueError: DVC has no default remote, or git's `origin` refuses branches from here.
    """
    if not space.has_remote():
        raise ValueError("push: DVC has no default remote; `dvc remote add --default NAME PLACE`, or leave push out")
    if has_origin(space):
        try:
            output(["git", "push", "--quiet", "--dry-run", "origin", f"HEAD:refs/heads/{BRANCHES}/try"], space.folder)
        except RuntimeError as error:
            raise ValueError(f"push: git's `origin` takes no branch from here: {error}") from error


def has_origin(space: Workspace) -> bool:
    """Tell whether git has a remote called `origin`."""
    return "origin" in space.git("remote").split()
