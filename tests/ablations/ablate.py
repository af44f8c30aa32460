"""`make ablate`: run the paper's claims at this project's scale, each variant as a DVC experiment, and compare them.

Claims and variants are listed in claims.yaml. Variants run one after another in a clone under .stillhouse that shares
the project's cache, so that stages of a build are not run again and the working tree stays unchanged. After an
interruption the next start runs the missing variants only. `dvc exp show --only-changed` lists the experiments. The
table is printed and written as Markdown; what somebody wrote by hand between two markers of the file stays.
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stages.recipe.recipe import Recipe, load
from stages.tracking.address import tracking_uri
from stages.tracking.recorder import connect, find_or_create_experiment
from tests.ablations import claims
from tests.ablations.comparison import AGREES, Difference, Scores, Side, by_source, difference, overall
from tests.ablations.experiments import ExperimentClone, ExperimentError

OUTPUT = Path("docs/results/ablations.md")
HAND_WRITTEN = "<!-- Written by hand from here on; `make ablate` keeps this part. -->"
GENERATED = "<!-- Written by `make ablate` from here on. -->"


@dataclass(frozen=True)
class Job:
    """A variant as an experiment, with the seconds that it should take."""

    variant: str
    experiment: str
    overrides: dict[str, Any]
    targets: list[str]
    tasks: set[str]
    seconds: float


@dataclass(frozen=True)
class Row:
    """A comparison with the figures of both sides."""

    comparison: claims.Comparison
    above: float
    below: float
    difference: Difference


def main() -> None:
    """Run the missing variants, compare, print and write the table."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.ablations.ablate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--list", action="store_true", help="print claims and variants, run nothing")
    parser.add_argument("--only", action="append", metavar="CLAIM", help="only this claim; may be given several times")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where the table goes (default: %(default)s)")
    parser.add_argument("--claims", type=Path, default=claims.FILE, help="the file of claims (default: claims.yaml)")
    arguments = parser.parse_args()
    try:
        suite = claims.read(arguments.claims)
        chosen = _chosen(suite, arguments.only)
        ablate(load(), suite, chosen, None if arguments.list else arguments.output)
    except (ExperimentError, ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")


def ablate(recipe: Recipe, suite: claims.Suite, chosen: list[str], output: Path | None) -> None:
    """Run the experiments that the chosen claims need and write their table; without `output`, list them."""
    clone = ExperimentClone(Path.cwd(), tracking_uri())
    history = f"{recipe.name}-ablations"
    plan = jobs(suite, chosen, clone, history)
    missing = [job for job in plan if clone.revision(job.experiment) is None]
    total = sum(job.seconds for job in missing)
    for job in plan:
        state = f"about {job.seconds:.0f} s" if job in missing else "done"
        print(f"{job.variant:28} {state:12} {' '.join(job.targets)}")
    print(
        f"{len(missing)} of {len(plan)} variants to run: about {_minutes(total)}, longer where `make build` has not run"
    )
    if output is None:
        return
    by_hand = hand_written(output)  # before hours of work, since it may refuse
    if missing:
        find_or_create_experiment(connect(), history)  # here, so that its artifacts lie in the project
        clone.prepare()
        run(clone, missing)
    rows = compare(suite, chosen, clone, plan, recipe.seed)
    text = report(suite, rows, f"{heading(recipe, clone.commit, suite.num_resamples)}\n{by_hand}")
    output.write_text(text, encoding="utf-8")
    print(f"\n{text}\nwritten to {output}")


def _chosen(suite: claims.Suite, only: Sequence[str] | None) -> list[str]:
    if unknown := sorted(set(only or ()) - suite.claims.keys()):
        raise ValueError(f"--only {' '.join(unknown)}: the claims are {', '.join(suite.claims)}")
    return [name for name in suite.claims if not only or name in only]


def jobs(suite: claims.Suite, chosen: list[str], clone: ExperimentClone, history: str) -> list[Job]:
    """List the experiments that the chosen claims need, in the file's order."""
    plan, trained = [], [dict[str, Any]()]  # a build has trained the project's own stage 1
    for name, tasks in suite.needed(chosen).items():
        variant, seconds = suite.variants[name], suite.seconds
        overrides = {"name": history, **variant.set}
        targets = [f"score-{variant.subject}@{task}" for task in sorted(tasks)]
        stage_1 = {key: value for key, value in variant.set.items() if key.startswith(("distill.", "extend."))}
        cost = seconds.start + seconds.score * len(tasks)
        if stage_1 not in trained:
            trained.append(stage_1)
            cost += seconds.distill
        if variant.subject == "adapter" and variant.set:
            cost += seconds.adapter * len(tasks)
        if variant.subject == "joint":
            cost += seconds.joint
        plan.append(Job(name, clone.name(name, {**overrides, "targets": targets}), overrides, targets, tasks, cost))
    return plan


def run(clone: ExperimentClone, missing: list[Job]) -> None:
    """Run experiments one after another; print the time left at the pace so far."""
    expected = spent = 0.0
    for number, job in enumerate(missing, 1):
        pace = spent / expected if expected else 1.0
        left = pace * sum(later.seconds for later in missing[number - 1 :])
        print(f"\n[{number}/{len(missing)}] {job.variant}, about {_minutes(left)} left", flush=True)
        started = time.monotonic()
        clone.run(job.experiment, job.overrides, job.targets)
        expected, spent = expected + job.seconds, spent + time.monotonic() - started


def compare(
    suite: claims.Suite, chosen: list[str], clone: ExperimentClone, plan: list[Job], seed: int
) -> dict[str, list[Row]]:
    """Compare the sides of each claim on the rows that the experiments scored."""
    scores: dict[tuple[str, str], Scores] = {}
    for job in plan:
        for task in job.tasks:
            path = f"data/scored/{suite.variants[job.variant].subject}-{task}.parquet"
            scores[job.variant, task] = by_source(clone.table(job.experiment, path))
    return {
        name: [_row(comparison, scores, seed, suite.num_resamples) for comparison in suite.claims[name].comparisons]
        for name in chosen
    }


def _row(comparison: claims.Comparison, scores: Mapping[tuple[str, str], Scores], seed: int, num_resamples: int) -> Row:
    above, below = (
        Side(scores[variant, claims.task_of(figure)], figure, minus) for variant, figure, minus in comparison.sides
    )
    return Row(comparison, above.value(), below.value(), difference(above, below, seed, num_resamples))


def heading(recipe: Recipe, commit: str, num_resamples: int) -> str:
    """Say what was run, where and when, and how to read the table."""
    machine = f"{os.cpu_count()} CPUs ({platform.machine()}), Python {platform.python_version()}"
    return (
        "# The paper's claims at this scale\n\n"
        f"`make ablate` wrote this on {datetime.now(UTC):%Y-%m-%d}: {machine}, recipe {recipe.name}, "
        f"seed {recipe.seed}, commit {commit[:10]}.\n"
        f"Figures are x100, means over test sources. Intervals are 95 %, over {num_resamples} paired resamples of the "
        "test sets'\nentities; each variant was trained once, so they hold no noise of training. A direction is "
        "unresolved where the\ninterval holds 0.\n"
    )


def hand_written(output: Path) -> str:
    """Return the part of an earlier table that somebody wrote by hand, between its markers; an empty part at first.

    Raises:
        ValueError: the file has not both markers, so that nothing says which part to keep.
    """
    if not output.exists():
        return f"{HAND_WRITTEN}\n\n{GENERATED}\n"
    _, start, rest = output.read_text(encoding="utf-8").partition(HAND_WRITTEN)
    part, end, _ = rest.partition(GENERATED)
    if not start or not end:
        raise ValueError(
            f"{output}: got no part written by hand, expected the lines {HAND_WRITTEN!r} and {GENERATED!r} around it; "
            "add them, or remove the file"
        )
    return f"{start}{part}{end}\n"


def report(suite: claims.Suite, rows: Mapping[str, Sequence[Row]], about: str) -> str:
    """Format the result as Markdown: a line for each claim, then a table for each."""
    verdicts = {name: [row.difference.verdict for row in of_claim] for name, of_claim in rows.items()}
    lines = [about, "| claim | in the paper | direction |", "| --- | --- | --- |"]
    for name, words in verdicts.items():
        claim = suite.claims[name]
        share = "" if len(words) == 1 else f" ({words.count(AGREES)} of {len(words)} agree)"
        lines.append(f"| {claim.says} | {claim.source} | **{overall(words)}**{share} |")
    for name, of_claim in rows.items():
        lines += ["", f"## {name}", "", "| compared | paper | ours | difference, 95 % | direction |"]
        lines += ["| --- | --- | --- | --- | --- |"]
        lines += [_line(row) for row in of_claim]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    sides, gap = row.comparison, row.difference
    interval = f"{100 * gap.value:+.1f} ({100 * gap.low:+.1f} to {100 * gap.high:+.1f})"
    ours = f"{100 * row.above:.1f} over {100 * row.below:.1f}"
    return f"| {sides.above} over {sides.below} | {sides.paper} | {ours} | {interval} | {gap.verdict} |"


def _minutes(seconds: float) -> str:
    return f"{max(1, round(seconds / 60))} min"


if __name__ == "__main__":
    main()
