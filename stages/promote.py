"""Promote: register the release, judge it by its gates, and sign it off or leave that to people.

Every release becomes a model version with alias `challenger`, also one that its gates refuse: it was built, its report
exists, and the reasons belong in the registry. A refused version does not get the alias `champion`, and the stage still
ends with success and says so. The current champion stays champion even if it is refused now, since whatever
serves `models:/<name>@champion` would stop; `stillhouse rollback` takes it down.

Writes data/promoted: version.json, report.html (the evaluation's, with the verdicts) and evidence/, by which the
release was judged and with which the next one will be compared.
"""

if __name__ == "__main__":  # The entry checks the recipe before torch is imported.
    from stages.entry import run_stage

    run_stage("promote")

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from stages.evaluation import gates
from stages.evaluation.champion_comparison import index_statement
from stages.evaluation.data_gates import data_figures, mteb_figures
from stages.evaluation.evidence import Evidence, load_evidence
from stages.evaluation.gates import Verdict
from stages.evaluation.summary import headline
from stages.recipe.paths import CURATED, EVALUATED, FIGURES, PROMOTED, QUANTIZED, VALIDATED
from stages.recipe.recipe import Recipe
from stages.recipe.redaction import redacted
from stages.registry import release_figures, store
from stages.registry.decisions import Decision, decide
from stages.registry.ledger import NotAllowedError
from stages.registry.outcome import next_steps, outcome, verdict_tags
from stages.registry.provenance import LOCK, provenance
from stages.registry.registration import register
from stages.reporting.report import render_report
from stages.tracking.address import tracking_uri
from stages.tracking.digests import digest
from stages.tracking.recorder import as_tags
from stages.tracking.runs import StageRun, stage_run

REPORT = EVALUATED / "report.json"
EVIDENCE = EVALUATED / "evidence"
# Beginnings of tags that an earlier judgement may have left.
JUDGED = ("metric.", "gate.", "refused_because", "warned_of")


def main(recipe: Recipe) -> None:
    """Promote the release of the recipe."""
    recorded = recipe.model_dump(mode="json", include={"name", "seed", "promote"})
    with stage_run("promote", recorded, [QUANTIZED / recipe.name, FIGURES, REPORT, EVIDENCE, VALIDATED]) as run:
        assert isinstance(run, StageRun), "promote is one process"
        promotion, verdicts = promote(recipe, run)
    print(gates.table(verdicts))
    address = redacted(tracking_uri()).replace(f"{Path.cwd()}/", "")
    print(next_steps(promotion, address, PROMOTED / "report.html"))


def promote(recipe: Recipe, run: StageRun) -> tuple[dict[str, Any], list[Verdict]]:
    """Register a release, unless it is registered already; judge it, and sign it off if `signoff` is automatic.

    Returns:
        (the content of version.json, the verdicts).

    Raises:
        ValueError: a gate names a figure that does not exist.
        RuntimeError: the logged model does not give unit vectors for every task.
    """
    run_id = run.run_id  # MLflow's database exists from here on
    release, name, metrics = QUANTIZED / recipe.name, recipe.promote.registered_model, read_json(FIGURES)
    client, evidence, built_from = store.registry(), load_evidence(EVIDENCE), provenance(release)
    champion = store.champion_of(client, name)
    version = store.find_version(client, name, built_from["release_digest"])
    version = version or register(client, name, release, run_id)

    verdicts: list[Verdict] = []
    if recipe.promote.mode != "disabled":
        verdicts = gates.judge(figures(recipe, metrics, evidence, version, champion), recipe.promote.gates)

    write_evidence(verdicts)
    write_report(recipe, verdicts, evidence, champion)
    run.log_metrics(headline(metrics))
    for path in (PROMOTED / "report.html", *([LOCK] if LOCK.exists() else [])):
        run.log_artifact(path)
    run.log_artifact(PROMOTED / "evidence", store.EVIDENCE)

    tags = built_from | verdict_tags(recipe.promote.mode, metrics["summary"], verdicts)
    tags |= {"release": recipe.name, "build_run_id": run.parent_run_id, "gate_mode": recipe.promote.mode}
    tags |= {"evidence_digest": digest(PROMOTED / "evidence"), "evidence_run_id": run_id}
    tags |= {"data_digest": digest(CURATED), "judged_against": champion.version if champion else store.NONE}
    store.set_tags(client, version, as_tags(tags), forget=JUDGED)
    number = str(version.version)
    client.update_model_version(name, number, description=gates.table(verdicts))
    client.set_registered_model_alias(name, store.CHALLENGER, number)

    objection = sign_off(client, name, number) if recipe.promote.signoff == "automatic" else ""
    promotion = outcome(client.get_model_version(name, number), verdicts)
    promotion |= {"objection": objection, "signoff": recipe.promote.signoff}
    write_json(PROMOTED / "version.json", promotion)
    return promotion, verdicts


def figures(
    recipe: Recipe,
    metrics: Mapping[str, Any],
    evidence: Evidence,
    version: ModelVersion,
    champion: ModelVersion | None,
) -> dict[str, gates.Figure]:
    """Collect every figure that a gate may name; a new criterion is a new line here."""
    release = QUANTIZED / recipe.name
    lineage, licenses = read_json(release / "lineage.json"), recipe.promote.allowed_licenses
    resamples = recipe.evaluate.num_resamples
    return {
        **release_figures.evaluated_figures(metrics),
        **release_figures.format_figures(release),
        **data_figures(CURATED, VALIDATED, lineage, licenses),
        **mteb_figures(metrics["mteb_overlap"]),
        **release_figures.served_figures(version, evidence),
        **release_figures.champion_figures(evidence, champion, recipe.engine, recipe.seed, resamples),
    }


def sign_off(client: MlflowClient, name: str, number: str) -> str:
    """Make the version champion, or return what stands against it."""
    decision = Decision(True, "signoff: automatic", "no gate refuses it", "automatic")
    try:
        decide(client, name, number, decision, approvals=1)
    except NotAllowedError as error:
        return str(error)
    return ""


def write_evidence(verdicts: Sequence[Verdict]) -> None:
    """Write everything by which the release was judged to one folder, whose digest stands for all of it.

    Modes are not copied: where DVC links its cache, the files of the evaluation are read-only.
    """
    folder = PROMOTED / "evidence"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(EVIDENCE, folder, copy_function=shutil.copyfile)
    shutil.copyfile(FIGURES, folder / FIGURES.name)
    write_json(folder / "verdicts.json", [verdict.as_dict() for verdict in verdicts])


def write_report(
    recipe: Recipe, verdicts: Sequence[Verdict], evidence: Evidence, champion: ModelVersion | None
) -> None:
    """Write the evaluation's report again, with every gate's verdict and the changes since the champion."""
    report = read_json(REPORT)
    about, moved = report["about"], release_figures.champion_queries(evidence, champion)
    about |= {
        # The gates may differ from those at the time of the evaluation.
        "recipe": about.get("recipe", {}) | {"promote": recipe.promote.model_dump(mode="json", by_alias=True)},
        "mode": recipe.promote.mode,
        "gates": [verdict.as_dict() for verdict in verdicts],
        "champion": str(champion.version) if champion else None,
        "index": index_statement(verdicts),
        "queries": {
            source: found | {"champion": moved.get(source)} for source, found in about.get("queries", {}).items()
        },
    }
    html = render_report(report["metrics"], report["curves"], about)
    (PROMOTED / "report.html").write_text(html, encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, indented, keys in order."""
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
