"""A Docker engine of its own for a while, and stand-ins of the base images: no registry is asked.

The engine needs root, and Debian's packages `docker.io`, `mmdebstrap` and `iptables`.
"""

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.checkouts import ROOT

PROGRAMS = ("dockerd", "docker", "mmdebstrap", "iptables")
NETWORKS = ("--bip", "10.99.0.1/24", "--default-address-pool", "base=10.98.0.0/16,size=24")
# What python:3.11-slim has and Debian's minimal system lacks.
PYTHON = """
FROM stand-in/base
RUN apt-get update \\
    && apt-get install --yes --no-install-recommends python3.11 libpython3.11-dev python3-pip \\
    && rm -f /usr/lib/python3.11/EXTERNALLY-MANAGED \\
    && ln -s /usr/bin/python3.11 /usr/local/bin/python && ln -s /usr/bin/pip3 /usr/local/bin/pip
"""


@contextmanager
def engine(folder: Path) -> Iterator[None]:
    """Run a Docker engine whose socket `DOCKER_HOST` names, and leave nothing of it behind.

    Raises:
        RuntimeError: this is not root, a program is missing, or the engine does not start.
    """
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if os.getuid() or missing:
        raise RuntimeError(f"got uid {os.getuid()} without {missing}, expected root and Debian's {', '.join(PROGRAMS)}")
    os.environ["DOCKER_HOST"] = f"unix://{folder}/docker.sock"
    rules, links = subprocess.check_output(["iptables-save"]), set(os.listdir("/sys/class/net"))
    where = ("--data-root", folder / "root", "--exec-root", folder / "exec", "--pidfile", folder / "pid")
    with (folder / "engine.log").open("w") as log:
        command = ["dockerd", *map(str, where), "--host", os.environ["DOCKER_HOST"], *NETWORKS]
        running = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait_for(running, folder)
        yield
    finally:
        running.terminate()
        running.wait(60)
        subprocess.run(["umount", folder / "exec/netns/default"], capture_output=True)
        for link in set(os.listdir("/sys/class/net")) - links:
            subprocess.run(["ip", "link", "delete", link], capture_output=True)
        subprocess.run(["iptables-restore"], input=rules, check=True)


def _wait_for(running: "subprocess.Popen[bytes]", folder: Path) -> None:
    deadline = time.monotonic() + 60
    while subprocess.run(["docker", "info"], capture_output=True).returncode:
        if running.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the engine did not start:\n{(folder / 'engine.log').read_text()[-3000:]}")
        time.sleep(0.5)


def said(*command: str | Path, **options: Any) -> str:
    """Run a command; return what it prints.

    Raises:
        RuntimeError: it failed; the message has what it said.
    """
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, **options)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(map(str, command))}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout


def make_images(folder: Path) -> None:
    """Make the stand-ins, and stillhouse's image from its own Dockerfile on one of them, without its packages."""
    sources = "/etc/apt/sources.list.d/debian.sources"
    said("mmdebstrap", "--variant=minbase", "--include=ca-certificates", "bookworm", folder / "base.tar", sources)
    said("docker", "import", folder / "base.tar", "stand-in/base")
    build = ("docker", "build", "--quiet", "--network", "host")
    said(*build, "-t", "stand-in/python", "-", input=PYTHON)
    said(*build, "-t", "stand-in/postgres", ROOT / "tests/stack/postgres")
    context = folder / "context"
    (context / "deploy").mkdir(parents=True)
    shutil.copy(ROOT / "deploy/mlflow.sh", context / "deploy")
    (context / "requirements.lock").touch()
    text = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8")
    lines = ["FROM stand-in/python" if line.startswith("FROM ") else line for line in text.splitlines()]
    said(*build, "-t", "stillhouse:0.1.0", "-f", "-", context, input="\n".join(lines))


def packages(folder: Path) -> tuple[str, str]:
    """Return the mounts that give a container this environment's packages and programs."""
    scripts = folder / "bin"
    scripts.mkdir()
    for file in Path(sys.executable).parent.iterdir():
        first, _, rest = file.read_bytes().partition(b"\n")
        if first.startswith(b"#!") and b"python" in first:
            (scripts / file.name).write_bytes(b"#!/usr/local/bin/python\n" + rest)
            (scripts / file.name).chmod(0o755)
    site = Path(sys.executable).parents[1] / "lib/python3.11/site-packages"
    return f"{site}:/usr/local/lib/python3.11/dist-packages:ro", f"{scripts}:/opt/bin:ro"
