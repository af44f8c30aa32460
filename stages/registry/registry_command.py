"""The registry for other processes: `python -m stages.registry.registry_command NAME ARGUMENTS`.

The arguments are one JSON object. Prints another one on standard output; where it cannot do as asked, that is
`{"error": ...}`, and the exit code is 1.
"""

import json
import sys
from dataclasses import asdict
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from stages.recipe.redaction import redacted
from stages.registry import store
from stages.registry.decisions import Decision, decide, describe, roll_back
from stages.registry.ledger import Ledger, LedgerError, NotAllowedError


def history(client: MlflowClient, name: str) -> dict[str, Any]:
    """Return the ledger, oldest entry first, and where the alias is."""
    entries = [asdict(entry) for entry in Ledger(client, name).entries]
    return {"champion": store.champion_number(client, name), "entries": entries}


def answer(command: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Carry out `describe`, `decide`, `roll_back` or `history`."""
    client = store.registry()
    match command:
        case "describe":
            return describe(client, **arguments)
        case "decide":
            return {"outcome": decide(client, decision=Decision(**arguments.pop("decision")), **arguments)}
        case "roll_back":
            return dict(zip(("champion_from", "champion_to"), roll_back(client, **arguments), strict=True))
        case "history":
            return history(client, **arguments)
    raise ValueError(f"got command {command}, expected describe, decide, roll_back or history")


def main() -> None:
    """Answer one command."""
    try:
        print(json.dumps(answer(sys.argv[1], json.loads(sys.argv[2]))))
    except (NotAllowedError, LedgerError, MlflowException, OSError) as error:
        print(json.dumps({"error": redacted(str(error))}))
        sys.exit(1)


if __name__ == "__main__":
    main()
