"""What Prefect costs: the default build through the flow beside a plain `dvc repro`; a flow with nothing to do.

Both builds are of fresh checkouts, so they also tell which outputs have the same hashes.
"""

import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

from tests.benchmarks.measure import Figure, seconds
from tests.checkouts import environment, locks_of_rebuilds
from tests.servers import prefect_server

REBUILD = (sys.executable, "-m", "flows.cli", "rebuild")


def flow_overhead(checkout: Path, by_dvc: float, plain: Path) -> dict[str, Figure]:
    """Build a fresh checkout through Prefect, then again with nothing stale.

    Args:
        by_dvc: seconds that `dvc repro` took for the same in the checkout `plain`.
    """
    server = checkout.with_name("prefect")
    server.mkdir()
    with prefect_server(server) as address:
        of_server = environment(PREFECT_API_URL=address, PREFECT_HOME=str(server / "client"))

        def rebuild() -> None:
            subprocess.run(REBUILD, cwd=checkout, env=of_server, check=True)

        by_flow = seconds(rebuild)
        cached = min(seconds(rebuild) for _ in range(3))
    (lock,) = locks_of_rebuilds(checkout)
    same, other = _compared((plain / "dvc.lock").read_text(encoding="utf-8"), lock)
    print("outputs that differ between the two builds:", ", ".join(other) or "none")
    return {
        "flow_overhead_ratio": Figure(by_flow / by_dvc, "", target="<= 1.10"),
        "flow_seconds": Figure(by_flow, "s"),
        "flow_cached_seconds": Figure(cached, "s", target="<= 15"),
        "same_outputs": Figure(len(same), f"of {len(same) + len(other)}"),
    }


def _compared(one: str, other: str) -> tuple[list[str], list[str]]:
    """Outputs that have the same hash in both locks, and those that have not."""
    first, second = (
        {out["path"]: out["md5"] for stage in YAML(typ="safe").load(lock)["stages"].values() for out in stage["outs"]}
        for lock in (one, other)
    )
    same = [path for path in first if first[path] == second[path]]
    return same, [path for path in first if path not in same]
