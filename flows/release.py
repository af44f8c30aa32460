"""Sign a release off: ask people, check what they would sign, move the alias `champion`, keep all of it on record.

    python -m flows.release sign-off          asks, in Prefect's UI and by tags in MLflow's
    python -m flows.release sign-off --approve --name YOU --reason "reads well"
    python -m flows.release rollback --name YOU --reason "complaints"
    python -m flows.release history

The registry's work is done by `stages.registry.command`, in a process of its own.
"""

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.exceptions import FlowPauseTimeout, NotPausedError
from prefect.flow_runs import pause_flow_run, resume_flow_run, suspend_flow_run
from prefect.input import RunInput
from prefect.runtime import deployment, flow_run
from prefect.settings import PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS, temporary_settings
from pydantic import StringConstraints

from stages.recipe.paths import RECIPE
from stages.recipe.recipe import read

PROMOTED = Path("data/promoted/version.json")
REGISTRY = (sys.executable, "-m", "stages.registry.command")
POLL_SECONDS, RESUME_TRIES = 2, 30
EPHEMERAL_SERVER_SECONDS = 120  # Prefect's own server took 16 to 18 s to start, and its limit is 20

Said = Annotated[str, StringConstraints(pattern=r"\S")]  # something other than spaces: checked by the form


class RegistryError(RuntimeError):
    """What the registry refused to do, in its words."""


class SignOff(RunInput):
    """The form: what a person decides about a release."""

    decision: Literal["approve", "refuse"]
    name: Said
    reason: Said


@flow(name="release", log_prints=True)
def release(version: int, folder: str = ".") -> str:
    """Ask for the sign-off of a registered version, as the recipe says, and carry it out.

    Started by a deployment it suspends, so that no process waits for people; else it pauses, and tags of the version in
    MLflow (`signoff`: approve or refuse, `signoff_by`, `signoff_reason`) answer the form as well as Prefect's UI does.

    Args:
        version: in the registry.
        folder: the checkout, or workspace, in which the version was built.

    Returns:
        `champion` or `refused`.

    Raises:
        RegistryError: something stands against the version, or became known to while people were asked.
    """
    recipe = read(Path(folder) / RECIPE).promote
    automatic = recipe.signoff == "automatic"
    state = registry(folder, "look", recipe.registered_model, str(version), *(["--automatic"] if automatic else []))
    state["folder"] = folder
    create_markdown_artifact(page(state), key="release", description="A release that waits for its sign-off")
    if state["champion"] == state["version"]:
        return "champion"
    if state["objections"]:
        raise RegistryError(f"{state['name']} version {version} cannot be signed off: {'; '.join(state['objections'])}")
    if automatic:
        return decide(state, "approve", "signoff: automatic", "no gate refuses it", "automatic", approvals=1)
    # After each suspension this begins anew: what was approved then is not asked again.
    # Where all have approved and the alias did not move, as a process died in between, one of them says so again.
    for turn in range(min(len(state["approved_by"]), recipe.approvals - 1), recipe.approvals):
        answer, how = ask(state, turn, recipe.signoff_hours)
        outcome = decide(state, answer.decision, answer.name, answer.reason, how, recipe.approvals)
        get_run_logger().info("%s: %s by %s (%s)", outcome, answer.decision, answer.name, answer.reason)
        if outcome != "waiting":
            return outcome
    raise RegistryError(f"{state['name']} version {version} still waits for an approval: start this flow again")


def ask(state: dict[str, Any], turn: int, hours: float) -> tuple[SignOff, str]:
    """Wait for one person's decision; says too whether it came by the form or by tags.

    Raises:
        RegistryError: nobody decided in time; the version stays as it was.
    """
    description = f"{page(state)}\n\nRead the report of run {state['evidence_run_id']} in MLflow before."
    form = SignOff.with_initial_data(description=description)
    key, seconds = f"sign-off-{turn + 1}", int(hours * 3600)
    if deployment.id is not None and flow_run.parent_flow_run_id is None:  # else Prefect cannot suspend it
        return suspend_flow_run(wait_for_input=form, timeout=seconds, key=key), "form"
    with tags_watched(state) as filled_in:
        try:
            answer = pause_flow_run(wait_for_input=form, timeout=seconds, key=key, poll_interval=POLL_SECONDS)
        except FlowPauseTimeout as late:
            said = f"nobody signed {state['name']} version {state['version']} off within {hours:g} h (signoff_hours)"
            raise RegistryError(f"{said}: start this flow again") from late
    by_tags = answer.model_dump(include={"decision", "name", "reason"}) in filled_in
    return answer, "tags" if by_tags else "form"


@contextmanager
def tags_watched(state: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """While the block waits for a form: what somebody says by tags of the version is filled in, and given here."""
    command = [*REGISTRY, "watch", state["name"], state["version"]]
    watcher = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=state["folder"])
    filled_in: list[dict[str, Any]] = []
    threading.Thread(target=fill_in, args=(watcher, UUID(flow_run.id), filled_in), daemon=True).start()
    try:
        yield filled_in
    finally:
        watcher.kill()
        watcher.wait()


def fill_in(watcher: subprocess.Popen[str], run_id: UUID, filled_in: list[dict[str, Any]]) -> None:
    """Resume the flow run with what the watching process answers; it is killed where somebody filled in the form."""
    assert watcher.stdout is not None
    lines = watcher.stdout.read().splitlines()
    answer = json.loads(lines[-1]) if lines else {"error": "killed"}
    if "error" in answer:
        return
    filled_in.append(answer)
    for _ in range(RESUME_TRIES):
        # The pause, or the form's fields, may not have reached Prefect's server yet.
        with suppress(NotPausedError, RuntimeError):
            resume_flow_run(run_id, run_input=answer)
            return
        time.sleep(POLL_SECONDS)


def decide(state: dict[str, Any], decision: str, name: str, reason: str, how: str, approvals: int) -> str:
    """Have the registry carry a decision out, or refuse to."""
    said = ["--who", name, "--why", reason, "--how", how, "--approvals", str(approvals)]
    return str(registry(state["folder"], "decide", state["name"], state["version"], decision, *said)["outcome"])


def registry(folder: str, *arguments: str) -> dict[str, Any]:
    """The answer of `stages.registry.command` in a checkout.

    Raises:
        RegistryError: it could not do so, in its words.
    """
    done = subprocess.run([*REGISTRY, *arguments], check=False, stdout=subprocess.PIPE, text=True, cwd=folder)
    lines = done.stdout.splitlines()
    answer: dict[str, Any] = json.loads(lines[-1]) if lines else {"error": f"ended with exit code {done.returncode}"}
    if "error" in answer:
        raise RegistryError(str(answer["error"]))
    return answer


def page(state: dict[str, Any]) -> str:
    """A version in Markdown: its gates, what stands against it, who approved of it already."""
    lines = [f"## {state['name']} version {state['version']}: {state['validation_status']}", ""]
    lines += [f"The champion is {'version ' + state['champion'] if state['champion'] else 'none'}.", ""]
    lines += [state["gates"] or "The recipe judges nothing."]
    lines += ["", *(f"- {one}" for one in state["objections"])]
    lines += [f"Approved of by {', '.join(state['approved_by'])}."] if state["approved_by"] else []
    return "\n".join(lines)


def sign_off(arguments: argparse.Namespace) -> None:
    """Ask for a decision on a version, or take the one that was given."""
    recipe = read().promote
    version = arguments.version or int(json.loads(PROMOTED.read_text(encoding="utf-8"))["version"])
    if arguments.decision is None:
        with temporary_settings({PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: EPHEMERAL_SERVER_SECONDS}):
            print(release(version))
        return
    state = {"name": recipe.registered_model, "version": str(version), "folder": "."}
    print(decide(state, arguments.decision, arguments.name, arguments.reason, "command", recipe.approvals))


def rollback(arguments: argparse.Namespace) -> None:
    """Make the champion before this one champion again."""
    model = read().promote.registered_model
    moved = registry(".", "roll-back", model, "--who", arguments.name, "--why", arguments.reason)
    print(f"{model}: champion was version {moved['champion_from']}, is version {moved['champion_to']}")


def history(arguments: argparse.Namespace) -> None:
    """Show every decision, and where the alias is."""
    model = read().promote.registered_model
    known = registry(".", "history", model)
    print(told(known["entries"]))
    print(f"{model}: champion is {known['champion'] or 'none'}")


def told(entries: Sequence[dict[str, Any]]) -> str:
    """The ledger, a line a decision."""
    rows = [("time", "version", "decision", "champion", "by", "why")]
    for one in entries:
        alias = f"{one['champion_from'] or 'none'} -> {one['champion_to'] or 'none'}"
        rows.append((one["time"], one["version"], one["action"], alias, f"{one['who']} ({one['how']})", one["why"]))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def parser() -> argparse.ArgumentParser:
    """Subcommands and their arguments."""
    whole = argparse.ArgumentParser(
        prog="python -m flows.release", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = whole.add_subparsers(required=True)
    for name, run in {"sign-off": sign_off, "rollback": rollback, "history": history}.items():
        one = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
        one.set_defaults(run=run)
        if name == "sign-off":
            one.add_argument("--version", type=int, help="in the registry (default: the one of data/promoted)")
            choice = one.add_mutually_exclusive_group()
            choice.add_argument("--approve", dest="decision", action="store_const", const="approve")
            choice.add_argument("--refuse", dest="decision", action="store_const", const="refuse")
        if name != "history":
            one.add_argument("--name", required=name == "rollback", help="who decides")
            one.add_argument("--reason", required=name == "rollback", help="why")
    return whole


def main() -> None:
    """Do as asked."""
    whole = parser()
    arguments = whole.parse_args()
    if getattr(arguments, "decision", None) and not (arguments.name and arguments.reason):
        whole.error("a decision needs --name and --reason: it goes on record with them")
    try:
        arguments.run(arguments)
    except (RegistryError, ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
