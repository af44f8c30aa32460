"""What Prefect costs: the tiny recipe through the flow beside a plain `dvc repro`; a flow with nothing to do."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.build import COPIED, ROOT
from tests.benchmarks.measure import Figure, seconds
from tests.servers import prefect_server

REPRO = (sys.executable, "-m", "dvc", "repro", "--quiet")
REBUILD = (sys.executable, "-m", "flows.rebuild")


def flow_overhead(folder: Path) -> dict[str, Figure]:
    """Build the tiny recipe in two fresh checkouts, by DVC alone and through Prefect; then again with nothing stale."""
    plain, flow = (checkout(folder / name) for name in ("plain", "flow"))
    by_dvc = seconds(lambda: run(plain, REPRO, {}))
    with prefect_server(folder) as address:
        of_server = {"PREFECT_API_URL": address, "PREFECT_HOME": str(folder / "client")}
        by_flow = seconds(lambda: run(flow, REBUILD, of_server))
        cached = min(seconds(lambda: run(flow, REBUILD, of_server)) for _ in range(3))
    return {
        "flow_overhead_ratio": Figure(by_flow / by_dvc, "", target="<= 1.10"),
        "flow_tiny_seconds": Figure(by_flow, "s"),
        "repro_tiny_seconds": Figure(by_dvc, "s"),
        "flow_cached_seconds": Figure(cached, "s", target="<= 15"),
    }


def checkout(folder: Path) -> Path:
    """A checkout under git whose recipe is the tiny one."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in (*COPIED, "flows", ".gitignore"):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, ignore=ignored)
        else:
            shutil.copy(ROOT / name, target)
    shutil.copy(ROOT / "tests/recipes/tiny.yaml", folder / "params.yaml")
    git = ["git", "-c", "user.name=bench", "-c", "user.email=bench@localhost"]
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "tiny"]):
        subprocess.run([*git, *command], cwd=folder, check=True)
    return folder


def run(folder: Path, command: tuple[str, ...], more: dict[str, str]) -> None:
    """Run a command of the project in a checkout, with this interpreter first in the path."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "STILLHOUSE_"))}
    environment |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}", **more}
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
