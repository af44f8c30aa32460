"""What a rebuild sends away: outputs to DVC's remote first, then the branch that names them."""

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from flows.pipeline import DVC
from flows.processes import guarded, output
from flows.stage import lines_of
from flows.workspace import Workspace

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


def push_branch(space: Workspace, branch: str) -> None:
    """Send the branch to `origin`, where the repository has one."""
    if "origin" in space.git("remote").split():
        output(["git", "push", "--quiet", "origin", branch], space.folder)
    else:
        get_run_logger().info("git has no remote `origin`: branch %s stays here", branch)
