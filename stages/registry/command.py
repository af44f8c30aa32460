"""The registry for other processes: `python -m stages.registry.command look|decide|roll-back|history|watch`.

Answers with one JSON object on standard output; what cannot be done is `{"error": ...}`, and exit code 1.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from stages.registry import decisions, store
from stages.registry.decisions import Decision, NotAllowedError
from stages.registry.ledger import Ledger, LedgerError
from stages.registry.lock import LockedError
from stages.tracking.runs import redacted

if TYPE_CHECKING:
    from mlflow import MlflowClient

POLL_SECONDS = 5.0
# Tags that a release owner sets in MLflow's UI: what, by whom, why.
SIGNOFF_TAGS = ("signoff", "signoff_by", "signoff_reason")


def look(arguments: argparse.Namespace) -> dict[str, Any]:
    """The state of a version."""
    return decisions.look(store.registry(), arguments.model, arguments.version, not arguments.automatic)


def decide(arguments: argparse.Namespace) -> dict[str, Any]:
    """Approve of a version or refuse it."""
    decision = Decision(arguments.decision == "approve", arguments.who, arguments.why, arguments.how)
    client = store.registry()
    outcome = decisions.decide(client, arguments.model, arguments.version, decision, arguments.approvals)
    if arguments.how == "tags":
        forget_tags(client, arguments.model, arguments.version)
    return {"outcome": outcome}


def roll_back(arguments: argparse.Namespace) -> dict[str, Any]:
    """Give the alias back to the champion before this one."""
    old, new = decisions.roll_back(store.registry(), arguments.model, arguments.who, arguments.why)
    return {"champion_from": old, "champion_to": new}


def history(arguments: argparse.Namespace) -> dict[str, Any]:
    """The ledger, oldest first, and where the alias is."""
    client = store.registry()
    entries = Ledger(client, arguments.model).entries
    champion = store.champion_of(client, arguments.model)
    return {"champion": champion and str(champion.version), "entries": [asdict(one) for one in entries]}


def watch(arguments: argparse.Namespace) -> dict[str, Any]:
    """Wait until somebody has set the tags `signoff`, `signoff_by` and `signoff_reason` of a version."""
    client = store.registry()
    while True:
        tags = client.get_model_version(arguments.model, arguments.version).tags
        what, who, why = (tags.get(name, "").strip() for name in SIGNOFF_TAGS)
        if what in ("approve", "refuse") and who and why:
            return {"decision": what, "name": who, "reason": why}
        time.sleep(POLL_SECONDS)


def forget_tags(client: "MlflowClient", name: str, number: str) -> None:
    """Take the tags away that a decision was read from, so that they are not read again."""
    for tag in SIGNOFF_TAGS:
        if tag in client.get_model_version(name, number).tags:
            client.delete_model_version_tag(name, number, tag)


def parser() -> argparse.ArgumentParser:
    """Subcommands and their arguments."""
    whole = argparse.ArgumentParser(prog="python -m stages.registry.command", description=__doc__)
    commands = whole.add_subparsers(required=True)
    for name, run in {
        "look": look,
        "decide": decide,
        "roll-back": roll_back,
        "history": history,
        "watch": watch,
    }.items():
        one = commands.add_parser(name, help=run.__doc__)
        one.set_defaults(run=run)
        one.add_argument("model", help="name in the registry")
        if name in ("look", "decide", "watch"):
            one.add_argument("version")
        if name == "look":
            one.add_argument("--automatic", action="store_true", help="no person vouches for it")
        if name == "decide":
            one.add_argument("decision", choices=["approve", "refuse"])
            one.add_argument("--how", choices=["automatic", "form", "tags", "command"], required=True)
            one.add_argument("--approvals", type=int, required=True)
        if name in ("decide", "roll-back"):
            one.add_argument("--who", required=True)
            one.add_argument("--why", required=True)
    return whole


def main() -> None:
    """Do as asked."""
    from mlflow.exceptions import MlflowException

    arguments = parser().parse_args()
    try:
        answer = arguments.run(arguments)
    except (NotAllowedError, LockedError, LedgerError, MlflowException, OSError) as error:
        print(json.dumps({"error": redacted(str(error))}))
        sys.exit(1)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
