"""The ledger of a registered model: who decided what, when and why, and where the alias `champion` went.

Its entries are the params `0001`, `0002`, ... of one MLflow run, which a tag of the registered model names. MLflow
writes a param once, on every store: a second value for it is refused. So nobody changes or removes an entry through
MLflow, and of two processes that decide at once the second finds its number taken and has to look again.
"""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH

from stages.tracking.recorder import find_or_create_experiment

RUN_TAG = "ledger_run_id"
# A tag that version 0.1 kept beside its ledger, a file that this version does not read.
OLD_TAG = "ledger_last"

Action = Literal["approved", "refused", "promoted", "rolled back", "found"]


class NotAllowedError(RuntimeError):
    """A decision that cannot be taken; says why and what to do."""


class LedgerError(RuntimeError):
    """The ledger is missing, or is not what was written."""


class ConflictError(RuntimeError):
    """Somebody else decided since the ledger was read."""


@dataclass(frozen=True)
class Entry:
    """One decision. `champion_from` and `champion_to` are versions, equal where the alias stayed, None for none."""

    time: str
    action: Action
    version: str
    who: str
    why: str
    how: str
    champion_from: str | None
    champion_to: str | None
    release_digest: str | None = None
    evidence_digest: str | None = None
    git_sha: str | None = None
    git_dirty: str | None = None


class Ledger:
    """A registered model's ledger as it is when it is read."""

    def __init__(self, client: MlflowClient, name: str) -> None:
        self.name, self._client = name, client
        tags = client.get_registered_model(name).tags
        self._run_id = tags.get(RUN_TAG)
        if OLD_TAG in tags:
            raise LedgerError(
                f"the decisions on the registered model {name} were recorded by version 0.1, in ledger.jsonl of run "
                f"{self._run_id}, which this version does not read; give promote.registered_model another name"
            )
        if self._run_id is None:
            raise LedgerError(
                f"the registered model {name} has no ledger, so this project did not make it; "
                "give promote.registered_model another name"
            )
        self._params: dict[str, str] = client.get_run(self._run_id).data.params
        self.entries: list[Entry] = []
        for number in range(1, 1 + sum(key.isdecimal() for key in self._params)):
            self.entries.append(self._read(f"{number:04d}"))

    @property
    def champion(self) -> str | None:
        """The champion after the last entry."""
        return self.entries[-1].champion_to if self.entries else None

    @property
    def interrupted(self) -> bool:
        """Whether the process of the last decision died before it moved the alias."""
        moves = bool(self.entries) and self.entries[-1].action in ("promoted", "rolled back")
        return moves and self._alias_key not in self._params

    def append(self, action: Action, version: str, champion_to: str | None, **known: Any) -> None:
        """Put an entry at the end.

        Raises:
            ConflictError: somebody else put another one there.
            NotAllowedError: the entry is too long.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        entry = Entry(now, action, version, champion_from=self.champion, champion_to=champion_to, **known)
        key, text = f"{len(self.entries) + 1:04d}", json.dumps(asdict(entry), ensure_ascii=False)
        if len(text) > MAX_PARAM_VAL_LENGTH:
            raise NotAllowedError(f"the entry has {len(text)} characters, at most {MAX_PARAM_VAL_LENGTH} fit: say less")
        try:
            self._client.log_param(self._run_id, key, text)
        except MlflowException as error:
            if key in self._client.get_run(self._run_id).data.params:
                raise ConflictError(f"{self.name}: entry {key} was written by somebody else") from error
            raise
        self.entries.append(entry)

    def note_alias(self) -> None:
        """Note that the alias followed the last entry."""
        self._client.log_param(self._run_id, self._alias_key, "moved")

    def former(self, champion: str) -> str | None:
        """Return the version from which `champion` took over, one step further back after each rollback; None: none."""
        reigns: list[str | None] = []
        for entry in self.entries:
            if entry.action == "rolled back":
                reigns.pop()
            elif entry.champion_to != entry.champion_from:
                reigns.append(entry.champion_to)
        return reigns[-2] if len(reigns) > 1 and reigns[-1] == champion else None

    @property
    def _alias_key(self) -> str:
        return f"{len(self.entries):04d} alias"

    def _read(self, key: str) -> Entry:
        """Parse an entry, which has to start from the champion of the one before."""
        try:
            entry = Entry(**json.loads(self._params[key]))
        except (KeyError, TypeError, ValueError):
            entry = None
        if entry is None or entry.champion_from != self.champion:
            raise LedgerError(
                f"the ledger of {self.name} (run {self._run_id}) was changed: entry {key} is missing, unreadable, or "
                "does not follow from the one before; compare it with a backup of MLflow's database before you decide"
            )
        return entry


def make_registered_model(client: MlflowClient, name: str) -> None:
    """Make a registered model with an empty ledger where there is none; of two that do so at once, one ledger stays."""
    if client.search_registered_models(f"name = '{name}'"):
        return
    run = client.create_run(find_or_create_experiment(client, f"{name} ledger"), run_name=f"ledger of {name}")
    client.set_terminated(run.info.run_id)
    try:
        client.create_registered_model(name, tags={RUN_TAG: run.info.run_id})
    except MlflowException as error:
        client.delete_run(run.info.run_id)
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
