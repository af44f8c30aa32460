"""The stages of a workspace's dvc.yaml: their order, what each needs, which are stale and why."""

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from flows.process_group import output

DVC = (sys.executable, "-m", "dvc", "--wait-for-lock")
# The user's own files.
SOURCES = "data/sources"
_NODE = re.compile(r'^"([^"]+)"(?: -> "([^"]+)")?;$')
# Outputs that are not in the workspace are fetched where a stage needs them; they make nothing stale.
_ABSENT = {"deleted"}


@dataclass(frozen=True)
class Needs:
    """What dvc.yaml says that a stage needs to run.

    `slot` is `meta.slot`, the limit that it counts for (None: it is light); `devices` is `meta.devices`, the recipe's
    key with the number of its devices (None: one).
    """

    slot: str | None
    devices: str | None
    reads_sources: bool


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml: the stages whose outputs it reads, and why it is stale; no reasons where it is not."""

    name: str
    upstream: tuple[str, ...]
    needs: Needs
    reasons: tuple[str, ...]


def read_pipeline(folder: Path, *, has_remote: bool) -> list[Stage]:
    """The stages of a workspace, each after those that it needs.

    Args:
        has_remote: an output that is not in the cache may be there.

    Raises:
        RuntimeError: DVC refuses the pipeline; with what it said.
    """
    with ThreadPoolExecutor() as pool:
        dag = pool.submit(output, [*DVC, "dag", "--dot"], folder)
        status = pool.submit(output, [*DVC, "status", "--json"], folder)
        upstream, reports = parse_dag(dag.result()), json.loads(status.result())
    reasons = parse_status(reports, absent={*_ABSENT, "not in cache"} if has_remote else _ABSENT)
    needs = needs_of((folder / "dvc.yaml").read_text(encoding="utf-8"))
    return [
        Stage(name, upstream[name], needs[name.partition("@")[0]], reasons.get(name, ())) for name in in_order(upstream)
    ]


def check_out(folder: Path) -> None:
    """Put what the cache has of the outputs into a workspace, for stages that will read them.

    What dvc.lock does not know goes: checking the recipe left an output where nothing was ever built.
    """
    output([*DVC, "checkout", "--quiet", "--allow-missing", "--force"], folder)


def parse_dag(dot: str) -> dict[str, tuple[str, ...]]:
    """What each stage needs, from `dvc dag --dot`."""
    needs: dict[str, tuple[str, ...]] = {}
    for line in dot.splitlines():
        if found := _NODE.match(line.strip()):
            earlier, later = found.groups()
            needs.setdefault(earlier, ())
            if later is not None:
                needs[later] = (*needs.get(later, ()), earlier)
    return needs


def in_order(needs: Mapping[str, Sequence[str]]) -> list[str]:
    """Every stage after those that it needs; otherwise as DVC lists them."""
    ordered: list[str] = []
    waiting = list(needs)
    while waiting:
        ready = next(name for name in waiting if set(needs[name]) <= set(ordered))  # DVC refuses cycles
        ordered.append(ready)
        waiting.remove(ready)
    return ordered


def parse_status(reports: Mapping[str, Sequence[Any]], absent: set[str]) -> dict[str, tuple[str, ...]]:
    """Why stages are stale, from `dvc status --json`: by stage, without what is only not here."""
    outs = {path for found in reports.values() for what, path, _ in _entries(found) if what == "changed outs"}
    reasons: dict[str, tuple[str, ...]] = {}
    for stage, found in reports.items():
        lines = [
            f"{path} {how}" if path else what
            for what, path, how in _entries(found)
            if how not in absent or (what == "changed deps" and not _made(path, outs))
        ]
        if lines:
            reasons[stage] = tuple(lines)
    return reasons


def _entries(found: Sequence[Any]) -> Iterator[tuple[str, str, str]]:
    """(what, path or parameter, how) of a stage's report; ("changed command", "", "") and its like."""
    for entry in found:
        if isinstance(entry, str):
            yield entry, "", ""
            continue
        for what, changes in entry.items():
            for path, how in changes.items():
                if isinstance(how, dict):
                    yield from ((what, f"{path}: {name}", change) for name, change in how.items())
                else:
                    yield what, path, how


def _made(path: str, outs: set[str]) -> bool:
    """Whether a path is an output, lies in one, or holds one."""
    return any(path == out or path.startswith(f"{out}/") or out.startswith(f"{path}/") for out in outs)


def needs_of(dvc_yaml: str) -> dict[str, Needs]:
    """What each stage needs; the instances of a foreach or matrix share theirs."""
    found = {}
    for name, body in YAML(typ="safe").load(dvc_yaml)["stages"].items():
        stage = body.get("do", body)
        meta = stage.get("meta", {})
        found[name] = Needs(meta.get("slot"), meta.get("devices"), SOURCES in stage.get("deps", []))
    return found
