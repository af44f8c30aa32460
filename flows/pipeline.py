"""The stages of a workspace's dvc.yaml: their order, their needs, and why each is stale."""

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
from stages.recipe.paths import SOURCES
from stages.recipe.process_environment import dvc_environment

DVC = (sys.executable, "-m", "dvc", "--wait-for-lock")
_NODE = re.compile(r'^"([^"]+)"(?: -> "([^"]+)")?;$')
# An output that is not in the workspace is fetched when a stage needs it, so its absence makes nothing stale.
_ABSENT = {"deleted"}


@dataclass(frozen=True)
class Needs:
    """Resources of a stage according to dvc.yaml.

    `slot` is `meta.slot`, the Prefect limit that the stage counts for (None: no limit); `devices` is `meta.devices`,
    the recipe's key with the number of its devices (None: one device).
    """

    slot: str | None
    devices: str | None
    reads_sources: bool


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml: `upstream` are the stages whose outputs it reads, `reasons` say why it is stale."""

    name: str
    upstream: tuple[str, ...]
    needs: Needs
    reasons: tuple[str, ...]


def read_pipeline(folder: Path, *, has_remote: bool) -> list[Stage]:
    """Read the stages of a workspace, each after those whose outputs it reads.

    Args:
        has_remote: outputs that are missing from the cache may come from DVC's remote.

    Raises:
        RuntimeError: DVC refuses the pipeline; the message has its output.
    """
    with ThreadPoolExecutor() as pool:
        dag = pool.submit(output, [*DVC, "dag", "--dot"], folder, dvc_environment())
        status = pool.submit(output, [*DVC, "status", "--json"], folder, dvc_environment())
        upstream, reports = parse_dag(dag.result()), json.loads(status.result())
    reasons = parse_status(reports, absent={*_ABSENT, "not in cache"} if has_remote else _ABSENT)
    needs = needs_of((folder / "dvc.yaml").read_text(encoding="utf-8"))
    return [
        Stage(name, upstream[name], needs[name.partition("@")[0]], reasons.get(name, ())) for name in in_order(upstream)
    ]


def check_out(folder: Path) -> None:
    """Check out the cached outputs into a workspace, for stages that will read them.

    Outputs that dvc.lock does not name are deleted: the check of the recipe left one in a workspace that was never
    built.
    """
    output([*DVC, "checkout", "--quiet", "--allow-missing", "--force"], folder, dvc_environment())


def parse_dag(dot: str) -> dict[str, tuple[str, ...]]:
    """Read the upstream stages of each stage from `dvc dag --dot`."""
    needs: dict[str, tuple[str, ...]] = {}
    for line in dot.splitlines():
        if found := _NODE.match(line.strip()):
            earlier, later = found.groups()
            needs.setdefault(earlier, ())
            if later is not None:
                needs[later] = (*needs.get(later, ()), earlier)
    return needs


def in_order(needs: Mapping[str, Sequence[str]]) -> list[str]:
    """Sort stages so that each comes after its upstream stages; otherwise keep DVC's order."""
    ordered: list[str] = []
    waiting = list(needs)
    while waiting:
        ready = next(name for name in waiting if set(needs[name]) <= set(ordered))  # DVC refuses cycles
        ordered.append(ready)
        waiting.remove(ready)
    return ordered


def parse_status(reports: Mapping[str, Sequence[Any]], absent: set[str]) -> dict[str, tuple[str, ...]]:
    """Read why each stage is stale from `dvc status --json`, and leave out outputs that are only absent."""
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
    """Yield (kind of change, path or parameter, state) for each entry; a bare entry has two empty strings."""
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
    """Tell whether a path is an output, lies in an output, or holds an output."""
    return any(path == out or path.startswith(f"{out}/") or out.startswith(f"{path}/") for out in outs)


def needs_of(dvc_yaml: str) -> dict[str, Needs]:
    """Read the needs of each stage; the instances of a foreach or matrix share them."""
    found = {}
    for name, body in YAML(typ="safe").load(dvc_yaml)["stages"].items():
        stage = body.get("do", body)
        meta = stage.get("meta", {})
        found[name] = Needs(meta.get("slot"), meta.get("devices"), str(SOURCES) in stage.get("deps", []))
    return found
