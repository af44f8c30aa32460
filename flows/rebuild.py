"""Rebuild the model: the stages of dvc.yaml in a workspace of their own, each as a Prefect task.

DVC decides which stage is stale and runs it in a process of its own. This flow decides when and where, shows each stage
with its log, and leaves a branch with the new dvc.lock. It does not touch the checkout that it starts from.
"""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.runtime import flow_run
from prefect.states import Completed, State
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from flows.cache import remove_damaged
from flows.champion import Champion, read_champion
from flows.estimate import planned_hours
from flows.failure_causes import Fault
from flows.pipeline import Stage, check_out, read_pipeline
from flows.process_group import stopping_all
from flows.pushing import check_remotes, push_branch, push_outputs
from flows.rebuild_page import page, table
from flows.rebuild_recipe import choose_recipe, halve_micro_batch, read_recipe
from flows.release import VERSION_FILE, start_release
from flows.schedule import Outcome, run_stages
from flows.stage_task import RebuildSettings, StageFailed
from flows.workspace import BRANCHES, Workspace, workspace
from stages.recipe.paths import FIGURES, RECIPE, STATE
from stages.recipe.process_environment import settle

STAGES_AT_ONCE = 16  # threads; Prefect's limits allow far fewer stages

Device = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]+$")]


def run_name() -> str:
    """Name a rebuild in lists by its recipe and its commit."""
    parameters = flow_run.parameters
    return f"{Path(parameters.get('recipe') or RECIPE).name} at {parameters.get('git_ref', 'HEAD')}"


@flow(name="rebuild", flow_run_name=run_name, task_runner=ThreadPoolTaskRunner(max_workers=STAGES_AT_ONCE))  # type: ignore[arg-type]
def rebuild(
    *,
    recipe: str | None = None,
    git_ref: str = "HEAD",
    refresh: bool = False,
    force: bool = False,
    devices: tuple[Device, ...] = (),
    stage_hours: Annotated[float, Field(gt=0)] | None = None,
    push: bool = False,
    release: bool = False,
) -> State[Any]:
    """Bring every output of a commit up to date in a workspace of its own, and show which stages ran and why.

    Args:
        recipe: file of the commit to use as params.yaml, e.g. deploy/recipes/nano.yaml (default: params.yaml itself).
        git_ref: branch, tag or commit to build; origin/main and its like are fetched first.
        refresh: read the sources again, also those on the web, in buckets and on the hub, whose changes DVC cannot see.
        force: run every stage, even where it is up to date.
        devices: GPUs of the worker that this rebuild may use, named as in CUDA_VISIBLE_DEVICES; without any, stages see
            all that the worker sees and count as `cpu-heavy`.
        stage_hours: stop a stage that takes longer; it resumes from its checkpoint in the next rebuild.
        push: send the outputs to DVC's remote, and the branch to git's `origin`.
        release: ask people to sign off the version that this rebuild registers (deployment release/sign-off).

    Raises:
        StageFailed: a stage failed; stages that read its outputs do not run, all others finish.
        ValueError: the recipe, the commit or a path in the recipe is refused; no stage has run.
    """
    settle(os.environ)
    number = f"{str(flow_run.id)[:8]}-{flow_run.run_count}"
    with stopping_all(), workspace(Path.cwd(), number, git_ref) as space:
        choose_recipe(space, recipe)
        space.try_branch()
        if push:
            check_remotes(space)
        lock_from, lock = space.use_latest_lock(), space.lock()
        get_run_logger().info("%s at %s, dvc.lock of %s", space.folder, space.commit, lock_from)
        champion: Champion | None = None
        while True:
            stages = read_pipeline(space.folder, has_remote=space.has_remote())
            forced = frozenset(stage.name for stage in stages if force or (refresh and stage.needs.reads_sources))
            if forced or any(stage.reasons for stage in stages):
                champion = champion or read_champion(space.home, read_recipe(space))
                if damaged := remove_damaged(space.folder):
                    get_run_logger().warning("removed damaged copies from DVC's cache: %s", ", ".join(damaged))
                    stages = read_pipeline(space.folder, has_remote=space.has_remote())
                if not space.has_remote():
                    check_out(space.folder)
            outcome = run_stages(stages, rebuild_settings(space, forced, devices, stage_hours))
            if not (_out_of_memory(outcome) and halve_micro_batch(space)):
                break
        branch = None
        if not outcome.failures and space.lock() != lock:
            branch = space.commit_lock(f"{BRANCHES}/{datetime.now(UTC):%Y-%m-%d}-{number}")
        title = conclusion(outcome, branch, lock_from)
        publish(space, title, stages, outcome, champion)
        if outcome.failures:
            raise outcome.failures[0]
        if release and branch and (space.folder / VERSION_FILE).is_file():
            start_release(space)
        if push:
            push_outputs(space)
            push_branch(space, branch)
        return Completed(message=title)


def rebuild_settings(
    space: Workspace, forced: frozenset[str], devices: tuple[str, ...], stage_hours: float | None
) -> RebuildSettings:
    """Settings of this rebuild for its stages."""
    return RebuildSettings(
        folder=space.folder,
        build=f"prefect-{flow_run.id}",
        recipe=read_recipe(space),
        forced=forced,
        devices=devices,
        locks=space.home / STATE / "devices",
        limit=None if stage_hours is None else stage_hours * 3600,
        has_remote=space.has_remote(),
    )


def _out_of_memory(outcome: Outcome) -> bool:
    return any(isinstance(error, StageFailed) and error.fault is Fault.MEMORY for error in outcome.failures)


def conclusion(outcome: Outcome, branch: str | None, lock_from: str) -> str:
    """State the result of the rebuild in one sentence.

    Args:
        branch: branch with the new dvc.lock; None where dvc.lock did not change.
        lock_from: branch or commit whose dvc.lock the rebuild started from.
    """
    failed = [result.stage for result in outcome.results if result.outcome == "failed"]
    if failed:
        return f"Failed: {', '.join(failed)}. No branch was made; the outputs of the other stages are in the cache."
    ran = f"{outcome.num_run} of {len(outcome.results)} stages ran"
    if branch is None:
        return f"{ran if outcome.num_run else 'Nothing was stale'}: every output is as in dvc.lock of {lock_from}."
    return f"{ran}. To take it over into a checkout: git merge {branch} && dvc checkout"


def publish(space: Workspace, title: str, stages: list[Stage], outcome: Outcome, champion: Champion | None) -> None:
    """Show the rebuild's page and table in Prefect's UI, with gates and figures where this rebuild has them."""
    get_run_logger().info(title)
    found = {
        file: json.loads((space.folder / file).read_text(encoding="utf-8"))
        for file in (VERSION_FILE, FIGURES)
        if not outcome.failures and (space.folder / file).is_file()
    }
    planned = planned_hours(space.folder) if outcome.num_run and not outcome.failures else {}
    figures = found.get(FIGURES, {}).get("summary")
    text = page(title, stages, outcome.results, planned, found.get(VERSION_FILE), figures, champion)
    create_markdown_artifact(text, key="rebuild", description="Stages, gates and figures of this rebuild")
    create_table_artifact(table(outcome.results, planned), key="rebuild-stages", description="Stages of this rebuild")
