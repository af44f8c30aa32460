"""Kill builds at random moments, and hold what comes of them against a build that nobody disturbed.

`python -m tests.faults.drill --kills 30`: the tiny recipe by `dvc repro`; SIGKILL to everything at once, as when a
machine goes. What is started again must end in the same release, file by file. A build that ends before it was killed
often enough is compared and followed by another.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.checkouts import TINY, checkout, environment

RELEASE = Path("data/quantized/stillhouse-tiny/SHA256SUMS")
REPRO = (sys.executable, "-m", "dvc", "repro")


def drill(folder: Path, kills: int, seed: int, tell: Callable[[str], None]) -> None:
    """Build once undisturbed, then with kills.

    Raises:
        RuntimeError: a build failed by itself, or made another release.
    """
    whole = checkout(folder / "undisturbed", TINY)
    started = time.monotonic()
    build(whole, None)
    seconds = time.monotonic() - started
    expected = (whole / RELEASE).read_text(encoding="utf-8")
    tell(f"undisturbed: {seconds:.0f} s, {len(expected.splitlines())} files")
    moments = random.Random(seed)  # noqa: S311 (a drill that can be repeated)
    done = builds = 0
    while done < kills:
        builds += 1
        killed = checkout(folder / f"killed-{builds}", TINY)
        while done < kills and (stage := build(killed, moments.uniform(0, seconds / 4))) is not None:
            done += 1
            tell(f"kill {done}, in build {builds}, during {stage}")
        build(killed, None)
        compare(expected, (killed / RELEASE).read_text(encoding="utf-8"))
        tell(f"build {builds} ended in the same release")


def build(folder: Path, kill_after: float | None) -> str | None:
    """Build the release; the stage during which it was killed, or None where it ended before.

    Raises:
        RuntimeError: it failed by itself; with the end of its log.
    """
    log = folder.with_suffix(".log")
    with log.open("wb") as stream:
        process = subprocess.Popen(
            REPRO, cwd=folder, env=environment(), stdout=stream, stderr=stream, start_new_session=True
        )
        try:
            code = process.wait(kill_after)
        except subprocess.TimeoutExpired:
            return kill(process)
    if code:
        raise RuntimeError(f"`dvc repro` ended with {code} in {folder}:\n{log.read_text(errors='replace')[-3000:]}")
    return None


def kill(process: "subprocess.Popen[bytes]") -> str:
    """SIGKILL to a build's whole group; says which stage was at work."""
    commands = []
    for one in psutil.Process(process.pid).children(recursive=True):
        try:
            commands += [word for word in one.cmdline() if word.startswith("stages.") and "recorder" not in word]
        except psutil.NoSuchProcess:
            continue
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return commands[0] if commands else "dvc itself"


def compare(expected: str, found: str) -> None:
    """Hold one release's list of digests against another's."""
    differing = sorted(line.split()[1] for line in set(expected.splitlines()) ^ set(found.splitlines()))
    if differing:
        raise RuntimeError(f"another release than the undisturbed one: {', '.join(dict.fromkeys(differing))}")


def main() -> None:
    """Drill in a temporary folder."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.drill", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30, help="how often to kill (default: 30)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the moments")  # noqa: S311
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="drill-") as folder:
        try:
            drill(Path(folder), arguments.kills, arguments.seed, lambda line: print(line, flush=True))
        except RuntimeError as error:
            sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
