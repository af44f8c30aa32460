"""The ledger of a registered model: who decided what, when and why, where the alias went. Nothing is taken out.

JSON lines among the artifacts of a run of its own, which a tag of the registered model names. Every line holds the
digest of the one before it, and other tags those of the last and of one that is about to be written, so that a changed,
missing or added line shows.
Written under `lock.deciding` alone.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from stages.tracking.recorder import find_or_create_experiment

if TYPE_CHECKING:
    from mlflow import MlflowClient

FILE = "ledger.jsonl"
RUN_TAG, LAST_TAG, NEXT_TAG = "ledger_run_id", "ledger_last", "ledger_next"
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
        self.entries = _checked(self._text.splitlines(), tags.get(LAST_TAG, FIRST), tags.get(NEXT_TAG), name)

    def append(self, entry: Entry) -> None:
        """Put an entry at the end, with its time and the digest of the one before."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        line = asdict(entry) | {"time": now, "previous": _digest(self._text.splitlines())}
        self._text += json.dumps(line, ensure_ascii=False, sort_keys=True) + "\n"
        if self._run_id is None:
            self._run_id = self._open()
        last = _digest(self._text.splitlines())
        self._client.set_registered_model_tag(self._name, NEXT_TAG, last)
        self._client.log_text(self._run_id, self._text, FILE)
        self._client.set_registered_model_tag(self._name, LAST_TAG, last)
        self.entries.append(Entry(**line))

    def champion(self) -> str | None:
        """The champion after the last entry."""
        return self.entries[-1].champion_to if self.entries else None

    def former(self, champion: str) -> str | None:
        """The version that `champion` took over from, one step further back after each rollback; None: from none."""
        reigns: list[str | None] = []
        for one in self.entries:
            if one.action == "rolled back":
                reigns.pop()
            elif one.champion_to != one.champion_from:
                reigns.append(one.champion_to)
        return reigns[-2] if len(reigns) > 1 and reigns[-1] == champion else None

    def _open(self) -> str:
        experiment_id = find_or_create_experiment(self._client, f"{self._name} ledger")
        run = self._client.create_run(experiment_id, run_name="ledger", tags={"registered_model": self._name})
        self._client.log_text(run.info.run_id, "", FILE)
        self._client.set_registered_model_tag(self._name, RUN_TAG, run.info.run_id)
        return str(run.info.run_id)


def _checked(lines: Sequence[str], last: str, following: str | None, name: str) -> list[Entry]:
    """Entries whose digests follow from each other and end at `last`.

    A process that dies between the line and the tag leaves the line that it was about to write, `following`, beyond the
    last one that the tag knows: that is no fault.
    """
    where = ""
    entries: list[Entry] = []
    for number, line in enumerate(lines):
        try:
            entries.append(Entry(**json.loads(line)))
        except (ValueError, TypeError):
            where = f"line {number + 1} is no entry"
            break
        if entries[-1].previous != _digest(lines[:number]):
            where = f"line {number + 1} does not follow from the one before it"
            break
    interrupted = last == _digest(lines[:-1]) and following == _digest(lines)
    if not where and last != _digest(lines) and not interrupted:
        where = "its last line is another"
    if where:
        raise LedgerError(
            f"the ledger of {name} was changed: {where}; compare it with a backup of the artifacts before "
            "anything else is decided"
        )
    return entries


def _digest(lines: Sequence[str]) -> str:
    """Digest that the next line has to name: of the last one, which names that of the one before."""
    return hashlib.sha256(lines[-1].encode()).hexdigest() if lines else FIRST
