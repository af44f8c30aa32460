"""Many rebuilds of one checkout at once on one Prefect server: all end right.

`python -m tests.faults.crowd --rebuilds 20`: the tiny recipe, from nothing. A rebuild that gets to a stage later takes
what an earlier one made; where two run it at the same time, they must make the same data and weights.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from ruamel.yaml import YAML

from tests.checkouts import TINY, checkout, environment, locks_of_rebuilds
from tests.servers import prefect_server

LIMIT = (sys.executable, "-m", "prefect", "concurrency-limit", "create", "cpu-heavy")
MADE = tuple(f"data/{name}" for name in ("curated", "embedded", "mined", "distilled", "extended", "adapted"))
REBUILD = (sys.executable, "-m", "flows.cli", "rebuild")


def crowd(folder: Path, rebuilds: int, at_once: int) -> tuple[float, int]:
    """Start them all, wait for all; returns the seconds that they took and how many left a branch.

    Args:
        at_once: stages that may run at the same time.

    Raises:
        RuntimeError: one failed, or they do not agree; with the end of its log.
    """
    home = checkout(folder / "checkout", TINY)
    with prefect_server(folder) as address:
        here = environment(PREFECT_API_URL=address, PREFECT_HOME=str(folder / "client"))
        subprocess.run([*LIMIT, str(at_once)], env=here, check=True, stdout=subprocess.DEVNULL)
        started = time.monotonic()
        running = [start(home, here, folder / f"rebuild-{number}.log") for number in range(rebuilds)]
        codes = [one.wait() for one in running]
    seconds = time.monotonic() - started
    for number, code in enumerate(codes):
        if code:
            log = (folder / f"rebuild-{number}.log").read_text(errors="replace")
            raise RuntimeError(f"rebuild {number} ended with {code}:\n{log[-3000:]}")
    made = [hashes(one) for one in locks_of_rebuilds(home)]
    if any(one != made[0] for one in made):
        raise RuntimeError(f"{len(made)} rebuilds do not agree on {', '.join(MADE)}: {made}")
    return seconds, len(made)


def hashes(lock: str) -> dict[str, str]:
    """Of data and weights; what comes after names runs and times."""
    stages = YAML(typ="safe").load(lock)["stages"].values()
    return {out["path"]: out["md5"] for stage in stages for out in stage["outs"] if out["path"].startswith(MADE)}


def start(home: Path, here: dict[str, str], log: Path) -> "subprocess.Popen[bytes]":
    """A rebuild with its output in a file."""
    with log.open("wb") as stream:
        return subprocess.Popen(REBUILD, cwd=home, env=here, stdout=stream, stderr=stream)


def main() -> None:
    """Rebuild in a temporary folder."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.crowd", description=__doc__.splitlines()[0])
    parser.add_argument("--rebuilds", type=int, default=20, help="how many (default: 20)")
    parser.add_argument("--at-once", type=int, default=psutil.cpu_count(), help="stages at once (default: cores)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="crowd-") as folder:
        try:
            seconds, branches = crowd(Path(folder), arguments.rebuilds, arguments.at_once)
        except RuntimeError as error:
            sys.exit(f"error: {error}")
    print(
        f"{arguments.rebuilds} rebuilds ended right in {seconds:.0f} s; {branches} branches agree on data and weights"
    )


if __name__ == "__main__":
    main()
