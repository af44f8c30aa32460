"""Decisions on a release: approvals and refusals, what stands against one, the way back. Each goes to the ledger.

The ledger decides who is champion and the alias `champion` follows it, so a decision takes no lock: it reads the
ledger, checks, and writes the next entry, which fails where somebody else wrote that entry first.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from stages.recipe.paths import QUANTIZED
from stages.registry import store
from stages.registry.ledger import Action, ConflictError, Entry, Ledger, NotAllowedError
from stages.registry.provenance import provenance
from stages.tracking.digests import digest


@dataclass(frozen=True)
class Decision:
    """A decision and who takes it; `how` is `automatic`, `form`, `tags` or `command`."""

    approve: bool
    who: str
    why: str
    how: str

    def __post_init__(self) -> None:
        if not self.who.strip() or not self.why.strip():
            raise NotAllowedError(f"got name {self.who!r} and reason {self.why!r}, expected both: say who, and why")


def decide(client: MlflowClient, name: str, number: str, decision: Decision, approvals: int) -> str:
    """Enter a decision in the ledger, and make the version `champion` when enough people have approved it.

    Args:
        client: client of the registry.
        name: name of the registered model.
        number: number of the version.
        decision: decision on the version.
        approvals: number of people, of different names, who have to approve.

    Returns:
        `champion`, `refused`, or `waiting` for another approval.

    Raises:
        NotAllowedError: something stands against it. The decision was not entered.
        LedgerError: the ledger was changed.
    """
    return _without_conflict(lambda: _decide(client, client.get_model_version(name, number), decision, approvals))


def roll_back(client: MlflowClient, name: str, who: str, why: str) -> tuple[str, str]:
    """Give the alias back to the champion before this one; return (from, to).

    Raises:
        NotAllowedError: there is no champion, none before it, or that one's models are not what was registered.
    """
    return _without_conflict(lambda: _roll_back(client, name, Decision(True, who, why, "command")))


def describe(client: MlflowClient, name: str, number: str, by_person: bool) -> dict[str, Any]:
    """Return the facts that a person needs to decide: the version's state, its gates, what stands against it."""
    version, ledger = client.get_model_version(name, number), Ledger(client, name)
    champion = store.champion_number(client, name)
    return {
        "name": name,
        "version": number,
        "champion": champion,
        "validation_status": version.tags.get("validation_status"),
        "gates": version.description,
        "objections": [] if champion == number else objections(client, version, ledger, by_person),
        "approved_by": sorted(approvers(ledger, version)),
        "evidence_run_id": version.tags.get("evidence_run_id"),
    }


def objections(client: MlflowClient, version: ModelVersion, ledger: Ledger, by_person: bool) -> list[str]:
    """List what stands against making this version champion; empty where nothing does.

    Args:
        client: client of the registry.
        version: the version.
        ledger: ledger of the version's model.
        by_person: whether a person signs. People may not approve a build from uncommitted files; automatic sign-off
            may, and the ledger records it.
    """
    tags, champion = version.tags, ledger.champion or store.NONE
    release = QUANTIZED / tags.get("release", "")
    now = provenance(release)
    against = []
    commit = "commit them, or name them in .gitignore (a person's own list and settings do not count)"
    again = "then dvc repro --force --single-item quantize && dvc repro"
    if by_person and tags.get("git_dirty") == "True":
        against.append(f"it was built from files that git does not have; {commit}, {again}")
    elif by_person and tags.get("git_dirty") != "False":
        against.append(
            "it is not known whether git has the files that it was built from; build in a git checkout in which "
            f"`git status` works for this user, {again}"
        )
    if tags.get("validation_status") == "refused":
        against.append(f"its gates refuse it ({tags.get('refused_because')})")
    if any(entry.action == "refused" and entry.version == str(version.version) for entry in ledger.entries):
        against.append("somebody refused it (see history); build another")
    if not by_person and any(_was_rolled_back(entry, version) for entry in ledger.entries):
        against.append("it was champion and was rolled back (see history); a person has to sign it off again")
    if tags.get("dvc_lock") != now["dvc_lock"]:
        against.append("dvc.lock in this checkout is not the one it was built with; check out its commit")
    if tags.get("release_digest") != now["release_digest"]:
        against.append(f"{release} differs from what was registered; `dvc checkout` brings it back")
    if not _serves_what_was_registered(client, version):
        against.append("its served models differ from what was registered")
    evidence = store.evidence_of(version)
    if (evidence and digest(evidence)) != tags.get("evidence_digest"):
        against.append("the evidence it was judged by has changed")
    if (judged := tags.get("judged_against")) != champion:
        against.append(
            f"it was judged against champion {judged}, and champion is {champion} now; "
            "judge it anew: dvc repro --force --single-item promote"
        )
    return against


def approvers(ledger: Ledger, version: ModelVersion) -> set[str]:
    """Return who has approved the version as it is, in small letters, since it was last champion or rolled back."""
    number, evidence = str(version.version), version.tags.get("evidence_digest")
    approved: set[str] = set()
    for entry in ledger.entries:
        if entry.champion_to == number or _was_rolled_back(entry, version):
            approved.clear()
        elif (entry.action, entry.version, entry.evidence_digest) == ("approved", number, evidence):
            approved.add(entry.who.casefold())
    return approved


def reconcile_alias(client: MlflowClient, name: str) -> Ledger:
    """Read the ledger and bring the alias and the ledger together.

    A decision whose process died before it moved the alias is carried out. A move of the alias that was no decision,
    such as by hand in MLflow, goes on record.
    """
    # The ledger is read first: a decision made meanwhile then raises ConflictError instead of being recorded as
    # `found`.
    ledger = Ledger(client, name)
    alias = store.champion_number(client, name)
    if ledger.interrupted:
        _move_alias(client, ledger)
    elif alias != ledger.champion:
        why = "the alias was moved in MLflow, not by a decision"
        ledger.append("found", alias or store.NONE, alias, who="unknown", why=why, how="alias")
    return ledger


def _without_conflict(act: Callable[[], Any]) -> Any:
    """Act again from the start, as often as somebody else decides in between."""
    while True:
        try:
            return act()
        except ConflictError:
            continue


def _decide(client: MlflowClient, version: ModelVersion, decision: Decision, approvals: int) -> str:
    name, number, who = version.name, str(version.version), decision.who.strip()
    ledger = reconcile_alias(client, name)
    if not decision.approve:
        _record(ledger, "refused", version, decision, ledger.champion)
        client.set_model_version_tag(name, number, "signoff_status", "refused")
        return "refused"
    if ledger.champion == number:
        return "champion"
    if against := objections(client, version, ledger, decision.how != "automatic"):
        raise NotAllowedError(f"{name} version {number} cannot be signed off: {'; '.join(against)}")
    before = approvers(ledger, version)
    known = len(before | {who.casefold()})
    if known >= approvals:
        _record(ledger, "promoted", version, decision, number)
        _move_alias(client, ledger)
        client.set_model_version_tag(name, number, "signoff_status", "approved")
        return "champion"
    if who.casefold() in before:
        raise NotAllowedError(f"{who} has approved {name} version {number} already; it takes another person")
    _record(ledger, "approved", version, decision, ledger.champion)
    client.set_model_version_tag(name, number, "signoff_status", f"{known} of {approvals} approvals")
    return "waiting"


def _roll_back(client: MlflowClient, name: str, decision: Decision) -> tuple[str, str]:
    ledger = reconcile_alias(client, name)
    champion = ledger.champion
    former = ledger.former(champion) if champion is not None else None
    if champion is None or former is None:
        raise NotAllowedError(f"{name}: champion is {champion or 'none'}, and the ledger knows of none before it")
    version = client.get_model_version(name, former)
    if not _serves_what_was_registered(client, version):
        why = "its served models differ from what was registered"
        raise NotAllowedError(f"{name} version {former} cannot be champion again: {why}")
    _record(ledger, "rolled back", version, decision, former)
    _move_alias(client, ledger)
    return champion, former


def _record(ledger: Ledger, action: Action, version: ModelVersion, decision: Decision, champion: str | None) -> None:
    tags = ("release_digest", "evidence_digest", "git_sha", "git_dirty")
    known = {name: version.tags.get(name) for name in tags}
    who, why = decision.who.strip(), decision.why.strip()
    ledger.append(action, str(version.version), champion, who=who, why=why, how=decision.how, **known)


def _move_alias(client: MlflowClient, ledger: Ledger) -> None:
    """Move the alias to the ledger's champion; again where somebody else decided while this process stood still."""
    assert ledger.champion is not None, "no decision leaves a model without a champion"
    client.set_registered_model_alias(ledger.name, store.CHAMPION, ledger.champion)
    ledger.note_alias()
    latest = Ledger(client, ledger.name)
    if latest.champion not in (None, ledger.champion):
        _move_alias(client, latest)


def _was_rolled_back(entry: Entry, version: ModelVersion) -> bool:
    return entry.action == "rolled back" and entry.champion_from == str(version.version)


def _serves_what_was_registered(client: MlflowClient, version: ModelVersion) -> bool:
    return store.served_digest(client, version) == version.tags.get("served_digest")
