"""The sensor of new data: compare the sources with the last look, and start a rebuild when one changed."""

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
from stages.recipe.paths import SOURCES

WEB_SECONDS = 30.0
# Response headers that tell the version of a file on a web server.
VALIDATORS = ("etag", "last-modified", "content-length")


@flow(name="watch-sources")
def watch_sources(deployment: str = "rebuild/retrain", recipe: str = "params.yaml") -> State[Any]:
    """Start a deployment of the rebuild when the user's own files or a web source changed since the last look.

    Args:
        deployment: FLOW/NAME of the rebuild to start, which keeps its own parameters.
        recipe: file of the checkout that names the sources.

    Raises:
        RuntimeError: a web server does not answer or refuses the request.
    """
    file = Path.cwd() / recipe
    now = source_digest(Path.cwd(), YAML(typ="safe").load(file))
    name = f"sources_{hashlib.sha256(f'{deployment} {recipe}'.encode()).hexdigest()[:12]}"
    before: Any = Variable.get(name)
    if before and before["digest"] == now:
        return Completed(message="No new data")
    number = before["number"] + 1 if before else 0
    message = "First look: later looks compare with the sources as they are now"
    if before:
        # The number tells apart sources that changed back; the key keeps an interrupted look from starting a second
        # rebuild.
        key = f"{name}-{number}-{now}"
        started = run_deployment(
            deployment, parameters={"refresh": True}, timeout=0, as_subflow=False, idempotency_key=key
        )
        assert isinstance(started, FlowRun)  # the call was synchronous
        message = f"New data: started {deployment} as {started.name}"
    Variable.set(name, {"number": number, "digest": now}, overwrite=True)
    return Completed(message=message)


def source_digest(home: Path, recipe: Mapping[str, Any]) -> str:
    """SHA-256 over the user's own files and the versions of files on web servers, as hexadecimal."""
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
    """Ask a web server for the version of a file without reading the file.

    Raises:
        RuntimeError: it does not answer, or refuses.
    """
    shown = address.partition("?")[0]  # the query may hold a signature
    try:
        answer = httpx.head(address, follow_redirects=True, timeout=WEB_SECONDS)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        reason = str(error).replace(address, shown)
        raise RuntimeError(f"{shown} cannot be read: {reason}; correct it, or try again later") from None
    return "\0".join(answer.headers.get(name, "") for name in VALIDATORS)
