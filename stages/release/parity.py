"""The parity gate: every format, loaded with its consumer's packages alone, must agree with torch to be released."""

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stages.release import consumer
from stages.release.checksums import write_json
from stages.release.environment import consumer_site, run_isolated
from stages.release.format_comparison import FormatOutput, agreement, disagreements
from stages.release.formats import FORMATS, NEEDED, Format, WeightKind
from stages.release.parity_samples import Samples

# Formats checked at the same time. They share the threads; each spends half of its time importing, on one thread.
AT_ONCE = 2

Limits = Mapping[WeightKind, Mapping[str, float]]
ParityReport = dict[str, dict[str, Any]]  # format -> released, reasons, tasks (figures of each)


def check_parity(release: Path, names: Sequence[str], samples: Samples, limits: Limits, threads: int) -> ParityReport:
    """Load formats of a release as their consumers do and compare them with torch.

    Args:
        names: formats to check.
        limits: least figures by kind of weights.

    Returns:
        A report for each format. A format that cannot be loaded is not released.
    """
    check = partial(_check_format, release, samples, limits, max(1, threads // AT_ONCE))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(names, pool.map(check, names), strict=True))


def _check_format(release: Path, samples: Samples, limits: Limits, threads: int, name: str) -> dict[str, Any]:
    form = FORMATS[name]
    try:
        outputs = consumer_outputs(release, form, samples, threads)
    except (RuntimeError, ModuleNotFoundError) as error:
        return {"released": False, "reasons": [f"it cannot be read: {error}"], "tasks": {}}
    tasks, reasons = {}, []
    for task, output in outputs.items():
        expected = samples.references[task]
        tasks[task] = agreement(expected.embeddings, output, samples.short)
        found = disagreements(expected, output, tasks[task], limits[form.weights])
        reasons += [f"{task}: {reason}" for reason in found]
    return {"released": not reasons, "reasons": reasons, "tasks": tasks}


def consumer_outputs(release: Path, form: Format, samples: Samples, threads: int) -> dict[str, FormatOutput]:
    """Output of a format for each task, from a process that has only the packages of the format's consumer.

    Raises:
        ModuleNotFoundError: a package of the consumer is not installed here.
        RuntimeError: the format could not be loaded.
    """
    request: dict[str, Any] = {
        "format": form.name,
        "release": str(release.resolve()),
        "tasks": sorted(samples.references),
        "threads": threads,
        "cases": samples.cases,
        "embedded": samples.embedded,
        "batch": [samples.embedded[row] for row in samples.short],
    }
    with tempfile.TemporaryDirectory(prefix="stillhouse-consumer-") as name:
        folder, answers = Path(name), Path(name) / "answers"
        answers.mkdir()
        site = consumer_site(form.packages, folder / "site")
        write_json(folder / "request.json", request)
        script = Path(str(consumer.__file__))
        run_isolated(site, script, [str(folder / "request.json"), str(answers)], folder)
        return {task: _read_answer(answers, task) for task in request["tasks"]}


def _read_answer(answers: Path, task: str) -> FormatOutput:
    answer = json.loads((answers / f"{task}.json").read_text(encoding="utf-8"))
    with np.load(answers / f"{task}.npz", allow_pickle=False) as vectors:
        padded = {side: vectors[side] for side in vectors.files if side != "alone"}
        return FormatOutput(answer["token_ids"], vectors["alone"], padded, answer["settings"])


def remove_failed_formats(release: Path, report: ParityReport) -> None:
    """Delete the formats that did not pass.

    Raises:
        ValueError: a format that every release needs did not pass.
    """
    for form in NEEDED:
        if not report[form.name]["released"]:
            reasons = "; ".join(report[form.name]["reasons"])
            raise ValueError(f"{form.name}: not the model that was trained, so there is no release: {reasons}")
    for name, result in report.items():
        if not result["released"]:
            shutil.rmtree(release / name)


def add_sizes(release: Path, report: ParityReport) -> None:
    """Add `megabytes` (10^6 bytes) of a task's folder to the figures of each format and task."""
    for name, result in report.items():
        for task, figures in result["tasks"].items():
            files = (path for path in (release / name / task).rglob("*") if path.is_file())
            figures["megabytes"] = round(sum(path.stat().st_size for path in files) / 1e6, 3)
