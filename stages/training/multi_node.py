"""A training stage on several machines: `accelerate launch` here and, as tasks of a Ray cluster, on the others.

All machines have the same interpreter, see the working folder at the same path and run the same number of processes, on
the devices with the numbers that this machine uses. Only the main process, which runs here, writes.
"""

import logging
import os
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from stages.recipe.paths import MACHINES_VARIABLE

JOIN_SECONDS = 600.0  # a machine with GPUs may have to start first
POLL_SECONDS = 0.5
STOP_SECONDS = 5.0  # for a launcher to end by itself, once its peers are gone or a signal reached it
REPORT_SECONDS = 60.0  # for Ray to find out how the other launchers ended
LAST_LINES = 100  # of a failed launcher's output
# Variables of this process that its peers need; all others stay here, HF_TOKEN and other secrets among them.
PASSED_ON = (
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
# The kernel tells a launcher to end when the process that started it ends; the launcher then ends its own processes.
ENDS_WITH_PARENT = ("setpriv", "--pdeathsig", "TERM")


def run_on_machines(launcher: Sequence[str], module: Sequence[str], machines: int) -> int:
    """Run a module by `accelerate launch` on this machine and on others of the cluster of RAY_ADDRESS.

    Where a launcher elsewhere fails, the launcher here is stopped, and the last lines of the other one are printed.

    Returns:
        The exit code of the launcher here.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        ConnectionError: there is no cluster, or one of its machines was lost.
        TimeoutError: the cluster has fewer machines, even after waiting for more.
    """
    ray = _connect(machines)
    nodes = _wait_for_nodes(ray, machines)
    flags = ["--num_machines", str(machines), "--same_network"]
    flags += ["--main_process_ip", ray.util.get_node_ip_address(), "--main_process_port", str(_free_port())]
    commands = [
        [*ENDS_WITH_PARENT, *launcher, *flags, "--machine_rank", str(rank), "-m", *module] for rank in range(machines)
    ]
    environment = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
    pinned = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    task = ray.remote(num_cpus=0, max_retries=0, max_calls=1)(run_command)
    remote = [
        task.options(scheduling_strategy=pinned(node, soft=False)).remote(command, str(Path.cwd()), environment)
        for command, node in zip(commands[1:], nodes[1:], strict=True)
    ]
    local = subprocess.Popen(commands[0])
    try:
        with suppress(ConnectionError):  # raised below, once the processes here have ended
            while local.poll() is None and not _failed_outputs(ray, remote, POLL_SECONDS):
                time.sleep(POLL_SECONDS)
    finally:
        code = _wait_for_end(local)
    if code:
        for lines in _failed_outputs(ray, remote, REPORT_SECONDS):
            print("\n".join(lines), file=sys.stderr)
    return code if code >= 0 else 128 - code


def run_command(command: Sequence[str], folder: str, environment: Mapping[str, str]) -> list[str]:
    """Run a command in a folder, in a process that Ray started; return its last lines if it fails, else none."""
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


def _connect(machines: int) -> Any:
    """Join the cluster of RAY_ADDRESS and return the module `ray`."""
    try:
        import ray
        import ray.util.scheduling_strategies
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"got {MACHINES_VARIABLE} {machines}, but Ray, which starts processes on other machines, is not installed; "
            "install it (pip install 'ray[data]~=2.60')"
        ) from error
    if "RAY_ADDRESS" not in os.environ:
        raise ConnectionError(
            f"got {MACHINES_VARIABLE} {machines}, but no RAY_ADDRESS, the cluster that they are in; start one "
            "(ray start --head here, ray start --address on the others)"
        )
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    same_code = {"env_vars": {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}}
    ray.init(logging_level=logging.WARNING, log_to_driver=False, runtime_env=same_code)
    return ray


def _wait_for_nodes(ray: Any, machines: int) -> list[str]:
    """Wait for the cluster's nodes and return their ids, this machine's first.

    Raises:
        TimeoutError: too few nodes join within JOIN_SECONDS.
    """
    here, deadline, reported = ray.get_runtime_context().get_node_id(), time.monotonic() + JOIN_SECONDS, 0
    while True:
        alive = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
        if len(alive) >= machines:
            return sorted(alive, key=lambda node: (node != here, node))[:machines]
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"got {len(alive)} machines in the cluster of RAY_ADDRESS, {MACHINES_VARIABLE} is {machines}; waited "
                f"{JOIN_SECONDS:.0f} s for the others: look at their logs, or ask for fewer"
            )
        if len(alive) != reported:
            reported = len(alive)
            print(f"waiting for machines: {reported} of {machines} are in the cluster", flush=True)
        time.sleep(POLL_SECONDS)


def _failed_outputs(ray: Any, remote: list[Any], seconds: float) -> list[list[str]]:
    """Return the last lines of each launcher elsewhere that failed, after some seconds or when all have ended.

    Raises:
        ConnectionError: a machine was lost.
    """
    ended = ray.wait(remote, num_returns=len(remote), timeout=seconds)[0]
    try:
        return [lines for lines in ray.get(ended) if lines]
    except ray.exceptions.RayError as error:
        reason = str(error).partition("\n")[0]
        raise ConnectionError(f"a machine of the cluster was lost, or Ray's process there: {reason}") from None


def _wait_for_end(launcher: "subprocess.Popen[bytes]") -> int:
    """Return the exit code of a launcher that ends by itself, or 1 where it has to be told because a peer failed."""
    with suppress(subprocess.TimeoutExpired):
        return launcher.wait(STOP_SECONDS)
    launcher.terminate()  # only once: told twice, it leaves its processes behind
    launcher.wait()
    return 1


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("", 0))
        return int(free.getsockname()[1])
