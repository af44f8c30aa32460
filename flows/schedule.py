"""All stages of a rebuild as Prefect tasks: each as soon as what it needs is there and its slot is free."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.futures import PrefectFuture, as_completed

from flows.pipeline import Stage
from flows.stage_task import Order, StageResult, run_stage, slot_of


@dataclass(frozen=True)
class Outcome:
    """What became of every stage, and why the failed ones failed."""

    results: list[StageResult]
    failures: list[BaseException]

    @property
    def num_run(self) -> int:
        """Stages that ran and ended well."""
        return sum(one.outcome == "run" for one in self.results)


def run_stages(stages: Sequence[Stage], order: Order) -> Outcome:
    """Run what is stale, adapters side by side; a stage that needs a failed one is not reached, the others end.

    A stage that may have to run carries its slot as a tag, and Prefect's limit of that name lets so many run at once;
    the task is pending until then.
    """
    may_run = possibly_running(stages, order.forced)
    futures: dict[str, PrefectFuture[Any]] = {}
    for stage in stages:
        tags = {slot} if stage.name in may_run and (slot := slot_of(stage, order)) else set()
        named = run_stage.with_options(name=stage.name, task_run_name=stage.name, tags=tags)
        upstream: Any = [futures[one] for one in stage.upstream]  # the task is given their results
        futures[stage.name] = named.submit(stage, order, upstream)
    show_progress(futures.values())
    outcome = Outcome([], [])
    for name, future in futures.items():
        future.wait()  # it is over, but until it was waited for it says what the server knew last
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
    """Stages that are stale or forced, and all that follow from them."""
    found: set[str] = set()
    for stage in stages:
        if stage.reasons or stage.name in forced or found & set(stage.upstream):
            found.add(stage.name)
    return found


def show_progress(futures: Iterable[PrefectFuture[Any]]) -> None:
    """Wait for all stages, and show on the run's page how many are done."""
    waiting = list(futures)
    artifact = create_progress_artifact(0.0, key="rebuild-progress", description="Stages that are done")
    assert isinstance(artifact, UUID)  # this is no coroutine
    for done, _ in enumerate(as_completed(waiting), start=1):
        update_progress_artifact(artifact, progress=100.0 * done / len(waiting))
