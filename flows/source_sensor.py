"""New data: look at the sources' digests, and start a rebuild that reads them again when one changed."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from prefect import flow
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.states import Completed, State
from prefect.variables import Variable
from ruamel.yaml import YAML

from flows.confinement import places
from flows.pipeline import SOURCES

WEB_SECONDS = 30.0
# What a web server says of a file's version.
VALIDATORS = ("etag", "last-modified", "content-length")


@flow(name="watch-sources")
def watch_sources(deployment: str = "rebuild/retrain", recipe: str = "params.yaml") -> State[Any]:
    """Start a deployment of the rebuild when the user's own files or a web source are others than at the last look.

    Args:
        deployment: FLOW/NAME of the rebuild to start; its other parameters are its own.
        recipe: file of the checkout whose sources to look at.

    Raises:
        RuntimeError: a web server does not answer, or refuses.
    """
    file = Path.cwd() / recipe
    now = source_digest(Path.cwd(), YAML(typ="safe").load(file))
    name = f"sources_{hashlib.sha256(f'{deployment} {recipe}'.encode()).hexdigest()[:12]}"
    before: Any = Variable.get(name)
    if before and before["digest"] == now:
        return Completed(message="No new data")
    number = before["number"] + 1 if before else 0
    message = "First look: the sources as they are now are what later looks compare with"
    if before:
        # The number, as the sources may come back to what they were; a look that ended here starts no second rebuild.
        key = f"{name}-{number}-{now}"
        started = run_deployment(
            deployment, parameters={"refresh": True}, timeout=0, as_subflow=False, idempotency_key=key
        )
        assert isinstance(started, FlowRun)  # this flow is no coroutine
        message = f"New data: started {deployment} as {started.name}"
    Variable.set(name, {"number": number, "digest": now}, overwrite=True)
    return Completed(message=message)


def source_digest(home: Path, recipe: Mapping[str, Any]) -> str:
    """SHA-256 over the user's own files and over what web servers say of theirs, as hexadecimal."""
    total = hashlib.sha256()
    for file in sorted(one for one in (home / SOURCES).rglob("*") if one.is_file()):
        with file.open("rb") as content:
            inner = hashlib.file_digest(content, "sha256").hexdigest()
        total.update(f"{file.relative_to(home).as_posix()}\0{inner}\n".encode())
    for address in sorted(
        {place for _, place in places(recipe["curate"]) if place.startswith(("http://", "https://"))}
    ):
        total.update(f"{address}\0{web_version(address)}\n".encode())
    return total.hexdigest()


def web_version(address: str) -> str:
    """What a web server says of a file without sending it.

    Raises:
        RuntimeError: it does not answer, or refuses.
    """
    shown = address.partition("?")[0]  # what follows may be a signature
    try:
        answer = httpx.head(address, follow_redirects=True, timeout=WEB_SECONDS)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        reason = str(error).replace(address, shown)
        raise RuntimeError(f"{shown} cannot be looked at: {reason}") from None
    return "\0".join(answer.headers.get(name, "") for name in VALIDATORS)
