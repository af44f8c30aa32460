"""The ledger of a registered model: who decided what, when and why, where the alias went. Nothing is taken out.

JSON lines among the artifacts of a run of its own, which a tag of the registered model names. Every line holds the
digest of the one before it, and another tag that of the last, so that a changed, missing or inserted line shows.
Written under `lock.deciding` alone.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from stages.training.recorder import find_or_create_experiment

if TYPE_CHECKING:
    from mlflow import MlflowClient

FILE = "ledger.jsonl"
RUN_TAG, LAST_TAG = "ledger_run_id", "ledger_last"
FIRST = "0" * 64

Action = Literal["approved", "refused", "promoted", "rolled back", "found"]


class LedgerError(RuntimeError):
    """The ledger is not what was written."""


@dataclass(frozen=True)
class Entry:
    """One decision. `champion_from` and `champion_to` are versions, equal where the alias stayed, None for none."""

    action: Action
    version: str
    who: str
    why: str
    how: str
    champion_from: str | None
    champion_to: str | None
    release_digest: str | None
    evidence_digest: str | None
    git_sha: str | None
    git_dirty: str | None
    time: str = ""
    previous: str = ""


class Ledger:
    """A registered model's ledger, read and checked when it is opened."""

    def __init__(self, client: "MlflowClient", name: str) -> None:
        self._client, self._name = client, name
        tags = client.get_registered_model(name).tags
        self._run_id: str | None = tags.get(RUN_TAG)
        self._text = ""
        if self._run_id is not None:
            self._text = Path(client.download_artifacts(self._run_id, FILE)).read_text(encoding="utf-8")
        self.entries = _checked(self._text.splitlines(), tags.get(LAST_TAG, FIRST), name)

    def append(self, entry: Entry) -> None:
        """Put an entry at the end, with its time and the digest of the one before."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        line = asdict(entry) | {"time": now, "previous": _digest(self._text.splitlines())}
        self._text += json.dumps(line, ensure_ascii=False, sort_keys=True) + "\n"
        if self._run_id is None:
            self._run_id = self._open()
        self._client.log_text(self._run_id, self._text, FILE)
        self._client.set_registered_model_tag(self._name, LAST_TAG, _digest(self._text.splitlines()))
        self.entries.append(Entry(**line))

    def champion(self) -> str | None:
        """The champion after the last entry."""
        return self.entries[-1].champion_to if self.entries else None

    def former(self, champion: str) -> str | None:
        """The version that was champion before `champion` last became it; None where there was none."""
        takeovers = [one for one in self.entries if one.champion_to == champion != one.champion_from]
        return takeovers[-1].champion_from if takeovers else None

    def _open(self) -> str:
        experiment_id = find_or_create_experiment(self._client, f"{self._name} ledger")
        run = self._client.create_run(experiment_id, run_name="ledger", tags={"registered_model": self._name})
        self._client.log_text(run.info.run_id, "", FILE)
        self._client.set_registered_model_tag(self._name, RUN_TAG, run.info.run_id)
        return str(run.info.run_id)


def _checked(lines: Sequence[str], last: str, name: str) -> list[Entry]:
    """Entries whose digests follow from each other and end at `last`.

    A process that dies between the line and the tag leaves one line more than the tag knows: that is no fault.
    """
    entries = [Entry(**json.loads(line)) for line in lines]
    wrong = [number for number, entry in enumerate(entries) if entry.previous != _digest(lines[:number])]
    if wrong or last not in (_digest(lines), _digest(lines[:-1])):
        where = f"line {wrong[0] + 1} does not follow from the one before it" if wrong else "its last line is another"
        raise LedgerError(
            f"the ledger of {name} was changed: {where}; compare it with a backup of the artifacts before "
            "anything else is decided"
        )
    return entries


def _digest(lines: Sequence[str]) -> str:
    """Digest that the next line has to name: of the last one, which names that of the one before."""
    return hashlib.sha256(lines[-1].encode()).hexdigest() if lines else FIRST
