"""Run all stages of a rebuild as Prefect tasks, each as soon as its inputs are there and its slot is free."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.futures import PrefectFuture, as_completed

from flows.pipeline import Stage
from flows.stage_task import RebuildSettings, StageResult, run_stage, slot_of


@dataclass(frozen=True)
class Outcome:
    """The result of every stage, and the exceptions of those that failed."""

    results: list[StageResult]
    failures: list[BaseException]

    @property
    def num_run(self) -> int:
        """Number of stages that ran and succeeded."""
        return sum(result.outcome == "run" for result in self.results)


def run_stages(stages: Sequence[Stage], settings: RebuildSettings) -> Outcome:
    """Run the stale stages, independent ones side by side; stages after a failed one are not reached.

    A stage that may have to run carries its slot as a tag, and its task is pending until Prefect's limit of that name
    has room.
    """
    may_run = possibly_running(stages, settings.forced)
    futures: dict[str, PrefectFuture[Any]] = {}
    for stage in stages:
        tags = {slot} if stage.name in may_run and (slot := slot_of(stage, settings)) else set()
        named = run_stage.with_options(name=stage.name, task_run_name=stage.name, tags=tags)
        upstream: Any = [futures[name] for name in stage.upstream]  # the task gets their results
        futures[stage.name] = named.submit(stage, settings, upstream)
    show_progress(futures.values())
    outcome = Outcome([], [])
    for name, future in futures.items():
        future.wait()  # the task is over, but its state is read from the server only here
        if future.state.is_completed():
            outcome.results.append(future.result())
        elif future.state.is_pending():
            outcome.results.append(StageResult(name, "not reached"))
        elif future.state.is_cancelled():
            outcome.results.append(StageResult(name, "stopped"))
        else:
            outcome.results.append(StageResult(name, "failed"))
            outcome.failures.append(future.result(raise_on_failure=False))
    return outcome


def possibly_running(stages: Sequence[Stage], forced: frozenset[str]) -> set[str]:
    """Find the stages that are stale or forced, and all that depend on them."""
    found: set[str] = set()
    for stage in stages:
        if stage.reasons or stage.name in forced or found & set(stage.upstream):
            found.add(stage.name)
    return found


def show_progress(futures: Iterable[PrefectFuture[Any]]) -> None:
    """Wait for all stages and show on the run's page how many are done."""
    waiting = list(futures)
    artifact = create_progress_artifact(0.0, key="rebuild-progress", description="Stages that are done")
    assert isinstance(artifact, UUID)  # the call was synchronous
    for done, _ in enumerate(as_completed(waiting), start=1):
        update_progress_artifact(artifact, progress=100.0 * done / len(waiting))
