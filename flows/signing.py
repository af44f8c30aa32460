"""After a rebuild: have people asked for the sign-off of the version that it registered."""

import json
from pathlib import Path

from prefect import get_run_logger
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound

from flows.workspace import Workspace

PROMOTED = Path("data/promoted/version.json")
DEPLOYMENT = "release/sign-off"


def start_release(space: Workspace) -> None:
    """Start the deployment of the release flow for this rebuild's version, whose workspace stays for it.

    Where nobody has made that deployment, the log says how to ask by hand: the rebuild itself went well.
    """
    version = int(json.loads((space.folder / PROMOTED).read_text(encoding="utf-8"))["version"])
    space.keep()
    parameters = {"version": version, "folder": str(space.folder)}
    try:
        run_deployment(DEPLOYMENT, parameters=parameters, timeout=0, as_subflow=False)
    except ObjectNotFound:
        get_run_logger().warning(
            "there is no deployment %s; to sign off: cd %s && python -m flows.release sign-off --version %d",
            DEPLOYMENT,
            space.folder,
            version,
        )
