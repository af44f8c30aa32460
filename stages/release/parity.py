"""The parity gate: every format, read by its consumer's packages alone, against torch; what fails is not released.

Shapes: N cases whose vectors are compared, D embedding dimension.
"""

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from stages.release import consumer
from stages.release.checksums import write_json
from stages.release.environment import consumer_site, run_isolated
from stages.release.format_comparison import Reading, faults, figures
from stages.release.formats import FORMATS, NEEDED, Format, Kind
from stages.release.parity_samples import Samples

# Consumers at a time, which share the threads: each spends half of its seconds importing, with one thread.
AT_ONCE = 2

Limits = Mapping[Kind, Mapping[str, float]]
Report = dict[str, dict[str, Any]]  # format -> released, reasons, tasks (figures of each)


def parity(release: Path, names: Sequence[str], samples: Samples, limits: Limits, threads: int) -> Report:
    """Read every format of a release as its consumer does, and judge it.

    Args:
        names: formats of the release.
        samples: what they have to agree with.
        limits: least figures by kind of weights.

    Returns:
        A report a format. One that cannot be read at all is not released either.
    """
    share = max(1, threads // AT_ONCE)

    def judged(name: str) -> dict[str, Any]:
        return _judged(release, FORMATS[name], samples, limits[FORMATS[name].kind], share)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(names, pool.map(judged, names), strict=True))


def _judged(release: Path, form: Format, samples: Samples, limits: Mapping[str, float], threads: int) -> dict[str, Any]:
    try:
        readings = read_as_consumer(release, form, samples, threads)
    except (RuntimeError, ModuleNotFoundError) as error:
        return {"released": False, "reasons": [f"it cannot be read: {error}"], "tasks": {}}
    tasks, reasons = {}, []
    for task, reading in readings.items():
        expected = samples.readings[task]
        tasks[task] = figures(expected.alone, reading, samples.short)
        reasons += [f"{task}: {one}" for one in faults(expected, reading, tasks[task], limits)]
    return {"released": not reasons, "reasons": reasons, "tasks": tasks}


def read_as_consumer(release: Path, form: Format, samples: Samples, threads: int) -> dict[str, Reading]:
    """The cases as a format's consumer reads them, in a process that has the consumer's packages alone.

    Raises:
        ModuleNotFoundError: a package of the consumer is not installed here.
        RuntimeError: the format could not be read.
    """
    request: dict[str, Any] = {
        "format": form.name,
        "release": str(release.resolve()),
        "tasks": sorted(samples.readings),
        "threads": threads,
        "cases": samples.cases,
        "embedded": samples.embedded,
        "batch": [samples.embedded[row] for row in samples.short],
    }
    with tempfile.TemporaryDirectory(prefix="stillhouse-consumer-") as name:
        folder = Path(name)
        site = consumer_site(form.packages, folder / "site")
        answers = folder / "answers"
        answers.mkdir()
        write_json(folder / "request.json", request)
        script = Path(str(consumer.__file__))
        run_isolated(site, script, [str(folder / "request.json"), str(answers)], folder)
        return {task: _read_answer(answers / task) for task in request["tasks"]}


def _read_answer(path: Path) -> Reading:
    answer = json.loads(path.with_name(f"{path.name}.json").read_text(encoding="utf-8"))
    with np.load(path.with_name(f"{path.name}.npz"), allow_pickle=False) as vectors:
        padded = {side: vectors[side] for side in vectors.files if side != "alone"}
        return Reading(answer["token_ids"], vectors["alone"], padded, answer["settings"])


def release_or_remove(release: Path, report: Report) -> None:
    """Delete the formats that did not pass.

    Raises:
        ValueError: one of them is needed, so there is no release.
    """
    for form in NEEDED:
        if not report[form.name]["released"]:
            reasons = "; ".join(report[form.name]["reasons"])
            raise ValueError(f"{form.name}: not the model that was trained, so there is no release: {reasons}")
    for name, one in report.items():
        if not one["released"]:
            shutil.rmtree(release / name)
