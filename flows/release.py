"""Sign a release off: ask people, check what they would sign, move the alias `champion`, keep all of it on record.

`stages.registry.registry_command` does the registry's work, in a separate process that runs the checkout's code.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

from mlflow.exceptions import MlflowException
from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.deployments import run_deployment
from prefect.exceptions import FlowPauseTimeout, NotPausedError, ObjectNotFound
from prefect.flow_runs import pause_flow_run, resume_flow_run, suspend_flow_run
from prefect.input import RunInput
from prefect.runtime import deployment, flow_run
from pydantic import StringConstraints

from flows.champion import mlflow_client
from flows.workspace import Workspace
from stages.recipe.paths import PROMOTED, RECIPE
from stages.recipe.process_environment import child_environment, settle
from stages.recipe.recipe import read

VERSION_FILE = PROMOTED / "version.json"
DEPLOYMENT = "release/sign-off"
POLL_SECONDS = 2
# Tags that a release owner sets in MLflow's UI, by field of the form.
SIGNOFF_TAGS = {"decision": "signoff", "name": "signoff_by", "reason": "signoff_reason"}

NotBlank = Annotated[str, StringConstraints(pattern=r"\S")]  # checked by the form


class RegistryError(RuntimeError):
    """What the registry refused to do, in its words."""


class SignOff(RunInput):
    """The form: what a person decides about a release."""

    decision: Literal["approve", "refuse"]
    name: NotBlank
    reason: NotBlank


@flow(name="release", log_prints=True)
def release(version: int, folder: str = ".") -> str:
    """Ask for the sign-off of a registered version, as the recipe says, and carry it out.

    A run of a deployment is suspended meanwhile, so that no process waits for people. Another run pauses; then tags of
    the version in MLflow (`signoff`: approve or refuse, `signoff_by`, `signoff_reason`) answer as well as Prefect's UI.

    Args:
        version: number of the version in the registry.
        folder: the checkout, or workspace, in which the version was built.

    Returns:
        `champion` or `refused`.

    Raises:
        RegistryError: something stands against the version, or came up while people were asked.
    """
    settle(os.environ)
    recipe = read(Path(folder) / RECIPE).promote
    automatic = recipe.signoff == "automatic"
    state = registry(folder, "describe", name=recipe.registered_model, number=str(version), by_person=not automatic)
    state["folder"] = folder
    create_markdown_artifact(page(state), key="release", description="A release that waits for its sign-off")
    if state["champion"] == state["version"]:
        return "champion"
    if state["objections"]:
        raise RegistryError(f"{state['name']} version {version} cannot be signed off: {'; '.join(state['objections'])}")
    if automatic:
        answer = SignOff(decision="approve", name="signoff: automatic", reason="no gate refuses it")
        return decide(state, answer, "automatic", approvals=1)
    # A suspended run begins anew when it goes on: those who approved before are not asked again.
    for turn in range(min(len(state["approved_by"]), recipe.approvals - 1), recipe.approvals):
        answer, how = ask(state, turn, recipe.signoff_hours)
        outcome = decide(state, answer, how, recipe.approvals)
        get_run_logger().info("%s: %s by %s (%s)", outcome, answer.decision, answer.name, answer.reason)
        if how == "tags":
            forget_tags(state)
        if outcome != "waiting":
            return outcome
    raise RegistryError(f"{state['name']} version {version} still waits for an approval: start this flow again")


def ask(state: dict[str, Any], turn: int, hours: float) -> tuple[SignOff, str]:
    """Wait for one person's decision; return it and whether it came by `form` or by `tags`.

    Raises:
        RegistryError: nobody decided in time; the version stays as it was.
    """
    description = f"{page(state)}\n\nRead the report of run {state['evidence_run_id']} in MLflow before."
    form = SignOff.with_initial_data(description=description)
    key, seconds = f"sign-off-{turn + 1}", int(hours * 3600)
    if deployment.id is not None and flow_run.parent_flow_run_id is None:  # else Prefect cannot suspend it
        return suspend_flow_run(wait_for_input=form, timeout=seconds, key=key), "form"
    with tags_watched(state) as answers:
        try:
            answer = pause_flow_run(wait_for_input=form, timeout=seconds, key=key, poll_interval=POLL_SECONDS)
        except FlowPauseTimeout as late:
            waited = f"nobody signed {state['name']} version {state['version']} off within {hours:g} h (signoff_hours)"
            raise RegistryError(f"{waited}: start this flow again") from late
    return answer, "tags" if answer.model_dump(include=set(SIGNOFF_TAGS)) in answers else "form"


@contextmanager
def tags_watched(state: dict[str, Any]) -> Iterator[list[dict[str, str]]]:
    """While the block waits for a form, fill it in from the version's tags.

    What was read is put into the yielded list.
    """
    answers: list[dict[str, str]] = []
    stop = threading.Event()
    threading.Thread(target=watch_tags, args=(state, UUID(flow_run.id), answers, stop), daemon=True).start()
    try:
        yield answers
    finally:
        stop.set()


def watch_tags(state: dict[str, Any], run_id: UUID, answers: list[dict[str, str]], stop: threading.Event) -> None:
    """Resume the flow run with the version's tags once they say what, who and why."""
    client = mlflow_client(Path(state["folder"]))
    while not stop.wait(POLL_SECONDS):
        # MLflow may be away for a while; the pause, or the form's fields, may not have reached Prefect's server yet.
        with suppress(MlflowException, NotPausedError, RuntimeError):
            tags = client.get_model_version(state["name"], state["version"]).tags
            answer = {field: tags.get(tag, "").strip() for field, tag in SIGNOFF_TAGS.items()}
            if answer["decision"] in ("approve", "refuse") and all(answer.values()):
                answers.append(answer)
                resume_flow_run(run_id, run_input=answer)
                return


def forget_tags(state: dict[str, Any]) -> None:
    """Remove the tags from which a decision was read, so that they are not read again."""
    client = mlflow_client(Path(state["folder"]))
    for tag in SIGNOFF_TAGS.values():
        client.delete_model_version_tag(state["name"], state["version"], tag)


def decide(state: dict[str, Any], answer: SignOff, how: str, approvals: int) -> str:
    """Have the registry carry a decision out, or refuse to."""
    decision = {"approve": answer.decision == "approve", "who": answer.name, "why": answer.reason, "how": how}
    known = {"name": state["name"], "number": state["version"], "decision": decision, "approvals": approvals}
    return str(registry(state["folder"], "decide", **known)["outcome"])


def registry(folder: str, command: str, **arguments: Any) -> dict[str, Any]:
    """Return the answer of `stages.registry.registry_command` in a checkout.

    Raises:
        RegistryError: it could not do so, in its words.
    """
    words = [sys.executable, "-m", "stages.registry.registry_command", command, json.dumps(arguments)]
    done = subprocess.run(words, check=False, stdout=subprocess.PIPE, text=True, cwd=folder, env=child_environment())
    lines = done.stdout.splitlines()
    answer: dict[str, Any] = json.loads(lines[-1]) if lines else {"error": f"ended with exit code {done.returncode}"}
    if "error" in answer:
        raise RegistryError(str(answer["error"]))
    return answer


def page(state: dict[str, Any]) -> str:
    """Describe a version in Markdown: its gates, what stands against it, who approved it already."""
    lines = [f"## {state['name']} version {state['version']}: {state['validation_status']}", ""]
    lines += [f"The champion is {'version ' + state['champion'] if state['champion'] else 'none'}.", ""]
    lines += [state["gates"] or "The recipe judges nothing."]
    lines += ["", *(f"- {objection}" for objection in state["objections"])]
    lines += [f"Approved by {', '.join(state['approved_by'])}."] if state["approved_by"] else []
    return "\n".join(lines)


def start_release(space: Workspace) -> None:
    """Start the deployment of this flow for the version that a rebuild registered; its workspace stays for it.

    Where nobody has made that deployment, the log says how to ask by hand: the rebuild itself went well.
    """
    version = int(json.loads((space.folder / VERSION_FILE).read_text(encoding="utf-8"))["version"])
    space.keep()
    parameters = {"version": version, "folder": str(space.folder)}
    try:
        run_deployment(DEPLOYMENT, parameters=parameters, timeout=0, as_subflow=False)
    except ObjectNotFound:
        advice = "there is no deployment %s; to sign off: cd %s && stillhouse sign-off --version %d"
        get_run_logger().warning(advice, DEPLOYMENT, space.folder, version)


def sign_off(
    *, version: int | None = None, approve: bool = False, refuse: bool = False, name: str = "", reason: str = ""
) -> None:
    """Ask people to sign a release off, or record a decision about it.

    Args:
        version: Number of the version in the registry; the one of data/promoted where it is not given.
        approve: Approve the version; without this and --refuse, people are asked and the command waits.
        refuse: Refuse the version, for good.
        name: Name of the person who decides.
        reason: Reason of the decision.
    """
    if approve and refuse:
        raise ValueError("got --approve and --refuse, expected one of them or none")
    recipe = read().promote
    number = version or int(json.loads(VERSION_FILE.read_text(encoding="utf-8"))["version"])
    if not approve and not refuse:
        print(release(number))
        return
    if not name.strip() or not reason.strip():
        raise ValueError("a decision needs --name and --reason: it goes on record with them")
    state = {"name": recipe.registered_model, "version": str(number), "folder": "."}
    answer = SignOff(decision="approve" if approve else "refuse", name=name, reason=reason)
    print(decide(state, answer, "command", recipe.approvals))


def rollback(*, name: str, reason: str) -> None:
    """Make the previous champion the champion again.

    Args:
        name: Name of the person who decides.
        reason: Reason of the decision.
    """
    model = read().promote.registered_model
    moved = registry(".", "roll_back", name=model, who=name, why=reason)
    print(f"{model}: champion was version {moved['champion_from']}, is version {moved['champion_to']}")


def history() -> None:
    """Show every decision about the registered model, and the champion."""
    model = read().promote.registered_model
    known = registry(".", "history", name=model)
    print(history_table(known["entries"]))
    print(f"{model}: champion is {known['champion'] or 'none'}")


def history_table(entries: Sequence[dict[str, Any]]) -> str:
    """Format the ledger, a line for each decision."""
    rows = [("time", "version", "decision", "champion", "by", "why")]
    for entry in entries:
        alias = f"{entry['champion_from'] or 'none'} -> {entry['champion_to'] or 'none'}"
        by = f"{entry['who']} ({entry['how']})"
        rows.append((entry["time"], entry["version"], entry["action"], alias, by, entry["why"]))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
