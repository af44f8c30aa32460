"""The environment of processes: a hook, a person's git, a nameless user and a proxy have no say in what a build does.

Stages and flows start git, and flows start DVC, with an environment from here alone.
"""

import getpass
import os
import subprocess
from collections.abc import MutableMapping
from functools import cache
from pathlib import Path

from stages.recipe.paths import STATE

# Settings that come before a person's own. No hook, no attributes or ignore list outside of the repository, no monitor
# of the file system and no partial checkout changes what git finds; a file's mode is no content; a branch goes alone.
GIT_SETTINGS = {
    "core.hooksPath": os.devnull,
    "core.attributesFile": os.devnull,
    "core.excludesFile": os.devnull,
    "core.fsmonitor": "false",
    "core.fileMode": "false",
    "core.sparseCheckout": "false",
    "submodule.recurse": "false",
    "fetch.recurseSubmodules": "false",
    "push.recurseSubmodules": "no",
    "push.gpgSign": "false",
    "push.followTags": "false",
    "push.pushOption": "",
}
AUTHOR = {"NAME": "stillhouse rebuild", "EMAIL": "rebuild@stillhouse.invalid"}
# Of a repository that receives a push, of one command's pathspecs, and of a commit that is being made.
_OF_ONE_COMMAND = ("GIT_QUARANTINE_PATH", "GIT_NAMESPACE", "GIT_ATTR_SOURCE", "GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE")
_PATHSPECS = tuple(f"GIT_{how}_PATHSPECS" for how in ("LITERAL", "GLOB", "NOGLOB", "ICASE"))
_COUNT = "GIT_CONFIG_COUNT"  # local by name, but whoever sets it means all repositories, as with safe.directory
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def child_environment() -> dict[str, str]:
    """Return this process's environment without the variables by which git tells a hook its repository.

    With these, git and DVC would work in that repository, wherever they are started.
    """
    found = {name: value for name, value in os.environ.items() if name not in _git_variables()}
    settle(found)
    return found


def dvc_environment() -> dict[str, str]:
    """Return the environment in which flows start DVC, which refuses a dvc.lock that a person's own list ignores."""
    return child_environment() | {"GIT_CONFIG_GLOBAL": os.devnull}


def git_environment(**more: str) -> dict[str, str]:
    """Return the environment in which git is started: `GIT_SETTINGS`, the author of rebuilds, and more variables."""
    found = child_environment()
    given = os.environ.get(_COUNT, "")
    first = int(given) if given.isdecimal() else 0
    for number, (key, value) in enumerate(GIT_SETTINGS.items(), start=first):
        found |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    found[_COUNT] = str(first + len(GIT_SETTINGS))
    found |= {f"GIT_{who}_{what}": text for who in ("AUTHOR", "COMMITTER") for what, text in AUTHOR.items()}
    return found | more


def settle(environment: MutableMapping[str, str]) -> None:
    """Give a user whom the machine does not know a name and a home, and reach servers as they can be reached.

    A container's user often has no entry in /etc/passwd; DVC and MLflow do not start without a name and a home. Servers
    on this machine are reached without a proxy. MLflow's artifacts come through its server, which would otherwise hand
    out addresses at its object store, and those often hold for the server alone.
    """
    environment.setdefault("MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD", "false")
    try:
        getpass.getuser()
    except (KeyError, OSError):
        environment["USER"] = str(os.getuid())
    try:
        Path.home()
    except RuntimeError:
        home = environment["HOME"] = str(STATE.resolve() / "home")
        try:
            Path(home).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"{error}; set HOME to a folder that this user can write to") from error
    given = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    hosts = [host for host in given.split(",") if host.strip()]
    hosts += [host for host in _LOOPBACK if host not in hosts]
    environment["no_proxy"] = environment["NO_PROXY"] = ",".join(hosts)


@cache
def _git_variables() -> frozenset[str]:
    try:
        own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        command = ["git", "rev-parse", "--local-env-vars"]
        listed = subprocess.run(command, env=own, check=True, capture_output=True, text=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        listed = []  # without git nothing reads them
    return frozenset({*listed, *_OF_ONE_COMMAND, *_PATHSPECS} - {_COUNT})
