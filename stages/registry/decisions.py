"""Decisions on a release: what stands against one, approvals and refusals, the way back; each goes to the ledger."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.registry import store
from stages.registry.ledger import Action, Entry, Ledger
from stages.registry.lock import deciding
from stages.registry.provenance import provenance
from stages.tracking.runs import digest

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

QUANTIZED = Path("data/quantized")


class NotAllowedError(RuntimeError):
    """A decision that cannot be taken; says why and what to do."""


@dataclass(frozen=True)
class Decision:
    """What somebody decided; `how` is `automatic`, `form`, `tags` or `command`."""

    approve: bool
    who: str
    why: str
    how: str

    def __post_init__(self) -> None:
        if not self.who.strip() or not self.why.strip():
            raise NotAllowedError(f"got name {self.who!r} and reason {self.why!r}, expected both: say who, and why")


def decide(client: "MlflowClient", name: str, number: str, decision: Decision, approvals: int) -> str:
    """Enter a decision in the ledger, and make the version `champion` when enough people have approved of it.

    Args:
        approvals: people of different names who have to approve.

    Returns:
        `champion`, `refused`, or `waiting` for another approval.

    Raises:
        NotAllowedError: something stands against it. Nothing was entered then.
        LockedError, LedgerError: see there.
    """
    with deciding(client, name):
        version = client.get_model_version(name, number)
        ledger, champion = Ledger(client, name), _number(store.champion_of(client, name))
        if champion == number and decision.approve:
            return "champion"
        by_person = decision.how != "automatic"
        if decision.approve and (faults := objections(client, version, ledger, champion, by_person)):
            raise NotAllowedError(f"{name} version {number} cannot be signed off: {'; '.join(faults)}")
        return _enter(client, version, decision, approvals, ledger, champion)


def _enter(
    client: "MlflowClient",
    version: "ModelVersion",
    decision: Decision,
    approvals: int,
    ledger: Ledger,
    champion: str | None,
) -> str:
    """Write the entries of an allowed decision, then move the alias where it is the last one needed."""
    name, number = version.name, str(version.version)
    notice_moves(ledger, champion)
    said = {"who": decision.who.strip(), "why": decision.why.strip(), "how": decision.how}
    if not decision.approve:
        ledger.append(entry("refused", version, said, champion, champion))
        client.set_model_version_tag(name, number, "signoff_status", "refused")
        return "refused"
    again = said["who"].casefold() in approvers(ledger, version)
    if not again:
        ledger.append(entry("approved", version, said, champion, champion))
    known = len(approvers(ledger, version))
    if known < approvals and again:
        raise NotAllowedError(f"{said['who']} has approved of {name} version {number} already; it takes another person")
    if known < approvals:
        client.set_model_version_tag(name, number, "signoff_status", f"{known} of {approvals} approvals")
        return "waiting"
    ledger.append(entry("promoted", version, said, champion, number))
    client.set_registered_model_alias(name, store.CHAMPION, number)
    client.set_model_version_tag(name, number, "signoff_status", "approved")
    return "champion"


def roll_back(client: "MlflowClient", name: str, who: str, why: str) -> tuple[str, str]:
    """Give the alias back to the champion before this one; returns (from, to).

    Raises:
        NotAllowedError: there is no champion, none before it, or that one's models are not what was registered.
    """
    decision = Decision(approve=True, who=who, why=why, how="command")
    with deciding(client, name):
        ledger, champion = Ledger(client, name), _number(store.champion_of(client, name))
        notice_moves(ledger, champion)
        former = ledger.former(champion) if champion is not None else None
        if champion is None or former is None:
            raise NotAllowedError(f"{name}: champion is {champion or 'none'}, and the ledger knows of none before it")
        version = client.get_model_version(name, former)
        if fault := _served_fault(client, version):
            raise NotAllowedError(f"{name} version {former} cannot be champion again: {fault}")
        said = {"who": decision.who.strip(), "why": decision.why.strip(), "how": decision.how}
        ledger.append(entry("rolled back", version, said, champion, former))
        client.set_registered_model_alias(name, store.CHAMPION, former)
        return champion, former


def look(client: "MlflowClient", name: str, number: str, by_person: bool) -> dict[str, Any]:
    """What a person needs to decide: the version's state, its gates, what stands against it."""
    version, ledger = client.get_model_version(name, number), Ledger(client, name)
    champion = _number(store.champion_of(client, name))
    faults = [] if champion == number else objections(client, version, ledger, champion, by_person)
    return {
        "name": name,
        "version": number,
        "champion": champion,
        "validation_status": version.tags.get("validation_status"),
        "gates": version.description,
        "objections": faults,
        "approved_by": sorted(approvers(ledger, version)),
        "evidence_run_id": version.tags.get("evidence_run_id"),
    }


def objections(
    client: "MlflowClient", version: "ModelVersion", ledger: Ledger, champion: str | None, by_person: bool
) -> list[str]:
    """What stands against making this version champion; empty where nothing does.

    Args:
        by_person: a person vouches for what can be built again alone; `signoff: automatic` vouches for nothing, and the
            ledger says whether files were changed.
    """
    tags = version.tags
    release = QUANTIZED / tags.get("release", "")
    now = provenance(release)
    faults = []
    if by_person and tags.get("git_dirty") == "True":
        faults.append(
            "it was built from files that git does not have; commit them, then "
            "dvc repro --force --single-item quantize && dvc repro"
        )
    if tags.get("validation_status") == "refused":
        faults.append(f"its gates refuse it ({tags.get('refused_because')})")
    if any(one.action == "refused" and one.version == str(version.version) for one in ledger.entries):
        faults.append("somebody refused it (see history); build another")
    if not by_person and any(_left(one, version) for one in ledger.entries):
        faults.append("it was champion and was rolled back (see history); a person has to sign it off again")
    if tags.get("dvc_lock") != now["dvc_lock"]:
        faults.append("dvc.lock here is not that of its build; check out its commit")
    if tags.get("release_digest") != now["release_digest"]:
        faults.append(f"{release} here does not hash to what was registered; `dvc checkout` brings it back")
    if fault := _served_fault(client, version):
        faults.append(fault)
    if fault := _evidence_fault(version):
        faults.append(fault)
    if (judged := tags.get("judged_against")) != (champion or store.NONE):
        faults.append(
            f"it was judged against champion {judged}, and champion is {champion or store.NONE} now; "
            "judge it anew: dvc repro --force --single-item promote"
        )
    return faults


def approvers(ledger: Ledger, version: "ModelVersion") -> set[str]:
    """Who has approved of the version as it is, each name once whatever its capitals; since it was last champion."""
    number = str(version.version)
    ends = [n for n, one in enumerate(ledger.entries, 1) if _left(one, version) or one.champion_to == number]
    since = ledger.entries[max(ends, default=0) :]
    return {one.who.casefold() for one in since if one.action == "approved" and _same(one, version)}


def notice_moves(ledger: Ledger, champion: str | None) -> None:
    """Enter that the alias is not where the ledger left it: somebody moved it in MLflow, past every check."""
    left = ledger.champion()
    if left != champion:
        unknown: dict[str, Any] = dict.fromkeys(("release_digest", "evidence_digest", "git_sha", "git_dirty"))
        said = {"who": "unknown", "why": "the alias was moved in MLflow, not by a decision", "how": "alias"}
        ledger.append(
            Entry(
                action="found",
                version=champion or store.NONE,
                champion_from=left,
                champion_to=champion,
                **said,
                **unknown,
            )
        )


def entry(
    action: Action, version: "ModelVersion", said: dict[str, str], champion_from: str | None, champion_to: str | None
) -> Entry:
    """An entry about a version as it was registered and judged."""
    known: dict[str, Any] = {
        name: version.tags.get(name) for name in ("release_digest", "evidence_digest", "git_sha", "git_dirty")
    }
    return Entry(
        action=action,
        version=str(version.version),
        champion_from=champion_from,
        champion_to=champion_to,
        **said,
        **known,
    )


def _same(one: Entry, version: "ModelVersion") -> bool:
    """Whether an entry is about this version as it was last judged."""
    evidence = version.tags.get("evidence_digest")
    return one.version == str(version.version) and one.evidence_digest == evidence


def _left(one: Entry, version: "ModelVersion") -> bool:
    """Whether by this entry the version was champion no more, and not because a better one came."""
    return one.action == "rolled back" and one.champion_from == str(version.version)


def _served_fault(client: "MlflowClient", version: "ModelVersion") -> str:
    found = store.served_digest(client, version)
    return (
        "" if found == version.tags.get("served_digest") else "its served models no longer hash to what was registered"
    )


def _evidence_fault(version: "ModelVersion") -> str:
    folder = store.evidence_of(version)
    found = None if folder is None else digest(folder)
    return (
        "" if found == version.tags.get("evidence_digest") else "what it was judged by is no longer what was recorded"
    )


def _number(version: "ModelVersion | None") -> str | None:
    return None if version is None else str(version.version)
