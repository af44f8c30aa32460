"""A training stage on several machines: `accelerate launch` here and, as tasks of a Ray cluster, on the others.

All machines have the same interpreter and see the working folder at the same path; each runs as many processes as the
others, on devices of the numbers that this one has. Only the first process, which is here, writes.
"""

import logging
import os
import re
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

JOIN_SECONDS = 600.0  # a machine with GPUs may have to start first
LOOK_SECONDS = 0.5
OWN_SECONDS = 5.0  # for a launcher whose peers are gone, or that a signal reached
END_SECONDS = 60.0  # until Ray knows what became of a machine
LAST_LINES = 100  # of a launcher that failed
# Settings of this process that its peers need; all others stay here, HF_TOKEN and other secrets among them.
CARRIED = (
    "CUBLAS_",
    "CUDA_",
    "GLOO_",
    "HF_HOME",
    "HF_HUB_",
    "NCCL_",
    "OMP_",
    "PYTORCH_",
    "STILLHOUSE_",
    "TORCH_",
    "UCX_",
)
# A launcher is told to end when who started it has ended; then it ends its processes.
WITH_STARTER = ("setpriv", "--pdeathsig", "TERM")
# What a process says that failed, and what one says that only lost another one; launchers end the rest with 6 and 15.
_ERROR = re.compile(r"^(?:\[rank\d+\]: )?[\w.]*(?:Error|Exception)\b|exitcode\s*: -(?!6\b|15\b)")
_LEFT = re.compile(r"RuntimeError: \[.*\bgloo\b|Dist(?:Backend|Network|Store)Error|ChildFailedError")


def run_on_machines(launcher: Sequence[str], module: Sequence[str], machines: int) -> int:
    """Run a module by `accelerate launch` on this machine and on others of the cluster of RAY_ADDRESS.

    Returns:
        The exit code of the launcher here. Where another one fails, this one is stopped; what another one says last is
        printed where it says why.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        ConnectionError: there is no cluster, or one of its machines was lost.
        TimeoutError: the cluster has fewer machines, and waiting for more did not help.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"got STILLHOUSE_MACHINES {machines}, but Ray, which starts processes on other machines, is not installed; "
            "install it (pip install 'ray[data]~=2.60')"
        ) from error
    if "RAY_ADDRESS" not in os.environ:
        raise ConnectionError(
            f"got STILLHOUSE_MACHINES {machines}, but no RAY_ADDRESS, the cluster that they are in; start one "
            "(ray start --head here, ray start --address on the others)"
        )
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    same_code = {"env_vars": {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}}
    ray.init(logging_level=logging.WARNING, log_to_driver=False, runtime_env=same_code)
    nodes = _joined(ray, machines)
    where = ["--num_machines", str(machines), "--same_network"]
    where += ["--main_process_ip", ray.util.get_node_ip_address(), "--main_process_port", str(_free_port())]
    commands = [
        [*WITH_STARTER, *launcher, *where, "--machine_rank", str(rank), "-m", *module] for rank in range(machines)
    ]
    carried = {name: value for name, value in os.environ.items() if name.startswith(CARRIED)}
    task = ray.remote(num_cpus=0, max_retries=0, max_calls=1)(run)
    others = [
        task.options(scheduling_strategy=_on(node)).remote(command, str(Path.cwd()), carried)
        for command, node in zip(commands[1:], nodes[1:], strict=True)
    ]
    here = subprocess.Popen(commands[0])
    try:
        with suppress(ConnectionError):  # said below, when the processes here have ended
            while here.poll() is None and not _failures(ray, others, LOOK_SECONDS):
                time.sleep(LOOK_SECONDS)
    finally:
        code = _ended(here)
    if code:
        for lines in _failures(ray, others, END_SECONDS):
            if any(_ERROR.search(line) and not _LEFT.search(line) for line in lines):
                print("\n".join(lines), file=sys.stderr)
    return code if code >= 0 else 128 - code


def run(command: Sequence[str], folder: str, environment: Mapping[str, str]) -> list[str]:
    """Run a command in a folder, in a process that Ray started; its last lines where it fails, else none."""
    own = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}  # Ray sets it to 1
    output: deque[str] = deque(maxlen=LAST_LINES)
    with subprocess.Popen(
        command,
        cwd=folder,
        env={**own, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        output.extend(line.rstrip() for line in process.stdout)
    return list(output) if process.returncode else []


def _ended(launcher: "subprocess.Popen[bytes]") -> int:
    """The exit code of a launcher that has to end: by itself, or told once. Told twice it leaves processes behind."""
    with suppress(subprocess.TimeoutExpired):
        return launcher.wait(OWN_SECONDS)
    launcher.terminate()
    return launcher.wait()


def _failures(ray: Any, others: list[Any], seconds: float) -> list[list[str]]:
    """The last lines of each launcher elsewhere that failed, after so many seconds or when all have ended.

    Raises:
        ConnectionError: a machine was lost.
    """
    ended = ray.wait(others, num_returns=len(others), timeout=seconds)[0]
    try:
        return [lines for lines in ray.get(ended) if lines]
    except ray.exceptions.RayError as error:
        said = str(error).partition("\n")[0]
        raise ConnectionError(f"a machine of the cluster was lost, or Ray's process there: {said}") from None


def _joined(ray: Any, machines: int) -> list[str]:
    """Ids of so many nodes of the cluster, this machine first, once they are there.

    Raises:
        TimeoutError: they do not come.
    """
    here, end, told = ray.get_runtime_context().get_node_id(), time.monotonic() + JOIN_SECONDS, 0
    while True:
        nodes = sorted((one["NodeID"] for one in ray.nodes() if one["Alive"]), key=lambda node: (node != here, node))
        if len(nodes) >= machines:
            return nodes[:machines]
        if time.monotonic() > end:
            raise TimeoutError(
                f"got {len(nodes)} machines in the cluster of RAY_ADDRESS, STILLHOUSE_MACHINES is {machines}; waited "
                f"{JOIN_SECONDS:.0f} s for the others: look at their logs, or ask for fewer"
            )
        if len(nodes) != told:
            told = len(nodes)
            print(f"waiting for machines: {told} of {machines} are in the cluster", flush=True)
        time.sleep(LOOK_SECONDS)


def _on(node: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("", 0))
        return int(free.getsockname()[1])
