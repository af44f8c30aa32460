"""Decisions on versions in a real MLflow registry: what stands against one, two people, the way back, two at once."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from stages.registry import store
from stages.registry.decisions import Decision, decide, describe, roll_back
from stages.registry.ledger import ConflictError, Ledger, LedgerError, NotAllowedError, make_registered_model
from stages.registry.provenance import lock_digest, provenance
from stages.registry.registry_command import main
from tests.conftest import register_version

MODEL = "tiny"
RELEASE = Path("data/quantized/tiny")
ADA, BOB = (Decision(True, name, "reads well", "command") for name in ("Ada", "Bob"))
AUTOMATIC = Decision(True, "signoff: automatic", "no gate refuses it", "automatic")


@pytest.fixture
def client(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A registry with version 1 of a release that is here."""
    import mlflow

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_store, "mlflow.db")
    Path("dvc.lock").write_text("stages: {evaluate: {cmd: e}}")
    opened = store.registry()
    make_registered_model(opened, MODEL)
    register_version(opened, MODEL, "one")
    yield opened
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    mlflow.set_tracking_uri("")


def champion(client: Any) -> str | None:
    version = store.champion_of(client, MODEL)
    return version and str(version.version)


def actions(client: Any) -> list[tuple[str, str, str | None, str | None]]:
    return [(one.action, one.who, one.champion_from, one.champion_to) for one in Ledger(client, MODEL).entries]


def test_an_approval_moves_the_alias_and_is_on_record(client: Any) -> None:
    assert decide(client, MODEL, "1", ADA, approvals=1) == "champion"
    assert champion(client) == "1"
    assert actions(client) == [("promoted", "Ada", None, "1")]
    entry = Ledger(client, MODEL).entries[-1]
    tags = client.get_model_version(MODEL, "1").tags
    assert (entry.why, entry.how, entry.release_digest) == ("reads well", "command", tags["release_digest"])
    assert (entry.evidence_digest, entry.git_sha) == (tags["evidence_digest"], "abc")
    assert entry.time.endswith("+00:00")
    # The champion again: nothing is decided twice.
    assert decide(client, MODEL, "1", BOB, approvals=1) == "champion"
    assert len(actions(client)) == 1


def test_two_people_have_to_be_two(client: Any) -> None:
    assert decide(client, MODEL, "1", ADA, approvals=2) == "waiting"
    assert client.get_model_version(MODEL, "1").tags["signoff_status"] == "1 of 2 approvals"
    with pytest.raises(NotAllowedError, match="ADA has approved tiny version 1 already; it takes another person"):
        decide(client, MODEL, "1", Decision(True, " ADA ", "again", "command"), approvals=2)
    assert champion(client) is None
    assert decide(client, MODEL, "1", BOB, approvals=2) == "champion"
    assert [one[:2] for one in actions(client)] == [("approved", "Ada"), ("promoted", "Bob")]


def test_a_refusal_is_final(client: Any) -> None:
    assert decide(client, MODEL, "1", Decision(False, "Ada", "too slow", "form"), approvals=1) == "refused"
    with pytest.raises(NotAllowedError, match="somebody refused it"):
        decide(client, MODEL, "1", BOB, approvals=1)
    assert champion(client) is None
    assert client.get_model_version(MODEL, "1").tags["signoff_status"] == "refused"
    # Judged again, by other gates.
    judge_again(client, "1")
    for again in (BOB, AUTOMATIC):
        with pytest.raises(NotAllowedError, match="somebody refused it"):
            decide(client, MODEL, "1", again, approvals=1)


def judge_again(client: Any, number: str) -> None:
    """Other evidence, against the champion of now."""
    from stages.tracking.digests import digest

    run_id = client.get_model_version(MODEL, number).tags["evidence_run_id"]
    client.log_text(run_id, "other", "evidence/verdicts.json")
    evidence = digest(Path(client.download_artifacts(run_id, "evidence")))
    tags = {"evidence_digest": evidence, "judged_against": champion(client) or "none"}
    tags |= {"release_digest": str(provenance(RELEASE)["release_digest"])}
    for name, value in tags.items():
        client.set_model_version_tag(MODEL, number, name, value)


def test_a_sign_off_that_a_dead_process_left_half_done_is_finished(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the alias moved, also the process that was to finish it: the decision is on record, and holds."""

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    for who in (ADA, AUTOMATIC):
        with monkeypatch.context() as patch:
            patch.setattr(type(client), "set_registered_model_alias", killed)
            with pytest.raises(KeyboardInterrupt):
                decide(client, MODEL, "1", who, approvals=1)
        assert champion(client) is None
    assert decide(client, MODEL, "1", BOB, approvals=1) == "champion"
    assert champion(client) == "1"
    assert actions(client) == [("promoted", "Ada", None, "1")]


@pytest.mark.parametrize("said", [("", "why"), ("who", " ")])
def test_a_decision_needs_a_name_and_a_reason(said: tuple[str, str]) -> None:
    with pytest.raises(NotAllowedError, match="expected both"):
        Decision(True, *said, "command")


def spoil(what: str, client: Any) -> None:
    tags = client.get_model_version(MODEL, "1").tags
    if what == "gates":
        client.set_model_version_tag(MODEL, "1", "validation_status", "refused")
        client.set_model_version_tag(MODEL, "1", "refused_because", "retention is 0.5")
    elif what == "dirty":
        client.set_model_version_tag(MODEL, "1", "git_dirty", "True")
    elif what == "unknown":
        client.delete_model_version_tag(MODEL, "1", "git_dirty")
    elif what == "lock":
        Path("dvc.lock").write_text("stages: {evaluate: {cmd: other}}")
    elif what == "release":
        (RELEASE / "merged/retrieval/weights").write_text("onf")
    elif what == "served":
        Path("served/one/artifacts/merged/retrieval/weights").write_text("onf")
    elif what == "serving code":
        Path("served/one/serving.py").write_text("# serves others")
    elif what == "calibration":
        Path("served/one/artifacts/calibration.json").write_text("[]")
    elif what == "evidence":
        client.log_text(tags["evidence_run_id"], "onf", "evidence/rows")
    else:
        client.set_model_version_tag(MODEL, "1", "judged_against", "7")


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("gates", r"its gates refuse it \(retention is 0.5\)"),
        ("dirty", "built from files that git does not have"),
        ("unknown", "not known whether git has the files that it was built from; build in a git checkout"),
        ("lock", "dvc.lock in this checkout is not the one it was built with"),
        ("release", "tiny differs from what was registered"),
        ("serving code", "its served models differ from what was registered"),
        ("calibration", "its served models differ from what was registered"),
        ("served", "its served models differ from what was registered"),
        ("evidence", "the evidence it was judged by has changed"),
        ("champion", "judged against champion 7, and champion is none now"),
    ],
)
def test_what_stands_against_a_sign_off(client: Any, what: str, why: str) -> None:
    spoil(what, client)
    with pytest.raises(NotAllowedError, match=why):
        decide(client, MODEL, "1", ADA, approvals=1)
    assert champion(client) is None
    assert actions(client) == []
    state = describe(client, MODEL, "1", by_person=True)
    assert len(state["objections"]) == 1
    # Refusing is always possible, and nobody vouches for an automatic sign-off.
    if what in ("dirty", "unknown"):
        assert decide(client, MODEL, "1", AUTOMATIC, approvals=1) == "champion"
        assert Ledger(client, MODEL).entries[-1].git_dirty == {"dirty": "True", "unknown": None}[what]
    else:
        assert decide(client, MODEL, "1", Decision(False, "Ada", "no", "command"), approvals=1) == "refused"


def test_of_two_releases_at_once_one_wins(client: Any) -> None:
    decide(client, MODEL, "1", ADA, approvals=1)
    register_version(client, MODEL, "two")
    register_version(client, MODEL, "three")
    # Both were judged against version 1; both are here, as far as their digests say.
    client.set_model_version_tag(MODEL, "2", "release_digest", provenance(RELEASE)["release_digest"])
    outcomes: dict[str, str] = {}

    def run(number: str) -> None:
        try:
            outcomes[number] = decide(client, MODEL, number, ADA, approvals=1)
        except NotAllowedError as error:
            outcomes[number] = str(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in ("2", "3")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winner = champion(client)
    assert winner in ("2", "3")
    assert winner is not None
    loser = {"2": "3", "3": "2"}[winner]
    assert outcomes[winner] == "champion"
    assert f"judged against champion 1, and champion is {winner} now" in outcomes[loser]
    assert [one[2:] for one in actions(client) if one[0] == "promoted"] == [(None, "1"), ("1", winner)]


def test_a_decision_that_another_one_overtook_is_judged_again(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one is taken between the checks and the entry."""
    register_version(client, MODEL, "two")
    client.set_model_version_tag(MODEL, "1", "release_digest", provenance(RELEASE)["release_digest"])
    append = Ledger.append

    def overtaken(*arguments: Any, **known: Any) -> None:
        monkeypatch.setattr(Ledger, "append", append)
        assert decide(client, MODEL, "2", BOB, approvals=1) == "champion"
        append(*arguments, **known)

    monkeypatch.setattr(Ledger, "append", overtaken)
    with pytest.raises(NotAllowedError, match="judged against champion none, and champion is 2 now"):
        decide(client, MODEL, "1", ADA, approvals=1)
    assert champion(client) == "2"
    assert actions(client) == [("promoted", "Bob", None, "2")]


def test_a_process_that_stood_still_before_it_moved_the_alias_takes_it_from_nobody(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    move = type(client).set_registered_model_alias

    def standing_still(*arguments: Any) -> None:
        monkeypatch.setattr(type(client), "set_registered_model_alias", move)
        register_version(client, MODEL, "two")
        client.set_model_version_tag(MODEL, "2", "judged_against", "1")
        assert decide(client, MODEL, "2", BOB, approvals=1) == "champion"
        move(*arguments)

    monkeypatch.setattr(type(client), "set_registered_model_alias", standing_still)
    decide(client, MODEL, "1", ADA, approvals=1)
    assert champion(client) == "2"
    assert actions(client) == [("promoted", "Ada", None, "1"), ("promoted", "Bob", "1", "2")]


def test_the_way_back_is_on_record_too(client: Any) -> None:
    with pytest.raises(NotAllowedError, match="champion is none, and the ledger knows of none before it"):
        roll_back(client, MODEL, "Ada", "complaints")
    decide(client, MODEL, "1", ADA, approvals=1)
    with pytest.raises(NotAllowedError, match="champion is 1, and the ledger knows of none before it"):
        roll_back(client, MODEL, "Ada", "complaints")
    register_version(client, MODEL, "two")
    decide(client, MODEL, "2", ADA, approvals=1)
    assert roll_back(client, MODEL, "Bob", "complaints") == ("2", "1")
    assert champion(client) == "1"
    assert actions(client)[-1] == ("rolled back", "Bob", "2", "1")
    # What is served must still be what was registered.
    register_version(client, MODEL, "three")
    decide(client, MODEL, "3", ADA, approvals=1)
    Path("served/one/artifacts/merged/retrieval/weights").write_text("onf")
    with pytest.raises(NotAllowedError, match="version 1 cannot be champion again: its served models differ"):
        roll_back(client, MODEL, "Bob", "complaints")
    assert champion(client) == "3"


def test_every_rollback_goes_a_step_further_back_and_keeps_out_what_it_left(client: Any) -> None:
    for number, weights in enumerate(("one", "two", "three"), 1):
        if number > 1:
            register_version(client, MODEL, weights)
        decide(client, MODEL, str(number), ADA, approvals=1)
    assert roll_back(client, MODEL, "Bob", "complaints") == ("3", "2")
    assert roll_back(client, MODEL, "Bob", "more complaints") == ("2", "1")
    with pytest.raises(NotAllowedError, match="champion is 1, and the ledger knows of none before it"):
        roll_back(client, MODEL, "Bob", "even more")
    # What was left comes back by a person alone, also one who had approved of it before.
    judge_again(client, "3")
    with pytest.raises(NotAllowedError, match=r"was rolled back .*; a person has to sign it off again"):
        decide(client, MODEL, "3", AUTOMATIC, approvals=1)
    assert decide(client, MODEL, "3", ADA, approvals=2) == "waiting"
    assert decide(client, MODEL, "3", BOB, approvals=2) == "champion"
    assert roll_back(client, MODEL, "Bob", "no") == ("3", "1")


def test_an_alias_that_was_moved_by_hand_is_noticed(client: Any) -> None:
    register_version(client, MODEL, "two")
    client.set_registered_model_alias(MODEL, "champion", "1")
    client.set_model_version_tag(MODEL, "2", "judged_against", "1")
    decide(client, MODEL, "2", ADA, approvals=1)
    assert actions(client) == [
        ("found", "unknown", None, "1"),
        ("promoted", "Ada", "1", "2"),
    ]
    assert roll_back(client, MODEL, "Ada", "back") == ("2", "1")


def test_an_entry_is_never_changed_or_written_twice(client: Any) -> None:
    stale = Ledger(client, MODEL)
    decide(client, MODEL, "1", ADA, approvals=1)
    said = {"who": "Eve", "why": "mine", "how": "command"}
    with pytest.raises(ConflictError, match="entry 0001 was written by somebody else"):
        stale.append("promoted", "1", "1", **said)
    run_id = client.get_registered_model(MODEL).tags["ledger_run_id"]
    with pytest.raises(MlflowException, match="Changing param values is not allowed"):
        client.log_param(run_id, "0001", "{}")
    with pytest.raises(NotAllowedError, match="say less"):
        Ledger(client, MODEL).append("refused", "1", "1", **said | {"why": "no" * 3000})
    assert actions(client) == [("promoted", "Ada", None, "1")]


@pytest.mark.parametrize(
    ("key", "entry"), [("0002", "approved"), ("0002", {"champion_from": "7"}), ("0003", {"champion_from": "1"})]
)
def test_a_line_that_was_added_by_hand_and_does_not_follow_is_refused(client: Any, key: str, entry: Any) -> None:
    decide(client, MODEL, "1", ADA, approvals=1)
    run_id = client.get_registered_model(MODEL).tags["ledger_run_id"]
    if isinstance(entry, dict):
        entry = json.dumps(json.loads(client.get_run(run_id).data.params["0001"]) | {"who": "Eve"} | entry)
    client.log_param(run_id, key, entry)
    with pytest.raises(LedgerError, match=r"the ledger of tiny .* was changed: entry 0002"):
        decide(client, MODEL, "1", Decision(False, "Ada", "no", "command"), approvals=1)


def test_a_model_that_others_registered_has_no_ledger(client: Any) -> None:
    client.create_registered_model("other")
    with pytest.raises(LedgerError, match="has no ledger"):
        Ledger(client, "other")


def test_decisions_of_an_earlier_version_are_never_taken_for_none(client: Any) -> None:
    client.set_registered_model_tag(MODEL, "ledger_last", "0" * 64)
    with pytest.raises(LedgerError, match=r"recorded by version 0\.1, in ledger\.jsonl"):
        Ledger(client, MODEL)


def test_of_two_that_register_a_model_at_once_one_ledger_stays(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Ledger(client, MODEL)
    monkeypatch.setattr(type(client), "search_registered_models", lambda *_: [])
    make_registered_model(client, MODEL)
    assert Ledger(client, MODEL)._run_id == found._run_id
    experiment = client.get_experiment_by_name(f"{MODEL} ledger")
    assert [run.info.run_id for run in client.search_runs([experiment.experiment_id])] == [found._run_id]


def test_the_command_answers_in_json(
    client: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(name: str, **arguments: Any) -> tuple[int, dict[str, Any]]:
        monkeypatch.setattr(sys, "argv", ["command", name, json.dumps({"name": MODEL, **arguments})])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(str(end.code))
        return code, json.loads(capsys.readouterr().out)

    assert command("describe", number="1", by_person=True)[1]["objections"] == []
    decision = {"approve": True, "who": "Ada", "why": "good", "how": "tags"}
    assert command("decide", number="1", decision=decision, approvals=1) == (0, {"outcome": "champion"})
    code, known = command("history")
    assert (code, known["champion"], len(known["entries"])) == (0, "1", 1)
    code, answer = command("roll_back", who="Ada", why="no")
    assert code == 1 and "knows of none before it" in answer["error"]


def test_the_digest_of_the_lock_file_leaves_promote_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert lock_digest() is None
    Path("dvc.lock").write_text("stages:\n  evaluate: {cmd: e}\n")
    before = lock_digest()
    Path("dvc.lock").write_text("stages:\n  evaluate: {cmd: e}\n  promote: {cmd: p}\n")
    assert lock_digest() == before
    Path("dvc.lock").write_text("stages:\n  evaluate: {cmd: other}\n")
    assert lock_digest() != before


@pytest.mark.parametrize(
    ("built", "now", "known"), [(False, False, False), (None, False, None), (False, None, None), (None, True, True)]
)
def test_a_release_is_clean_only_if_git_said_so_at_its_making_and_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built: bool | None, now: bool | None, known: bool | None
) -> None:
    monkeypatch.chdir(tmp_path)
    if now is not None:
        git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run([*git, "init", "--quiet"], check=True)
        Path(".gitignore").write_text("/release\n")
        subprocess.run([*git, "add", "--all"], check=True)
        subprocess.run([*git, "commit", "--quiet", "--message", "first"], check=True)
        if now:
            Path("new.py").write_text("a")
    Path("release").mkdir()
    Path("release/lineage.json").write_text(json.dumps({"git_dirty": built}))
    assert provenance(Path("release"))["git_dirty"] is known
