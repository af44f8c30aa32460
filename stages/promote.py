"""The last stage: register the release, judge it by its gates, sign it off or leave that to people.

Every release becomes a model version with alias `challenger`, also one that its gates refuse: `dvc repro` did
build it, its report exists, and the reasons belong in the registry. A refused version is given no `champion`
alias, and the stage still ends with success, saying so aloud. A version that is `champion` already is never
taken down here, since whatever serves `models:/<name>@champion` would stop: `python -m flows.release rollback` does.

Writes data/promoted: version.json, report.html (the evaluation's, with the verdicts) and evidence/, which is what the
release was judged by and what the next one will be compared with.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.evaluation import gates
from stages.evaluation.gates import Figure, Verdict, judge, refusals, table
from stages.recipe.paths import FIGURES
from stages.recipe.recipe import Recipe, load
from stages.registry import decisions, registration, store
from stages.registry.advice import next_steps
from stages.registry.provenance import LOCK, provenance
from stages.tracking.address import redacted, tracking_uri
from stages.tracking.digests import digest
from stages.tracking.runs import StageRun, stage_run

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from stages.evaluation.evidence import Evidence

CURATED = Path("data/curated")
VALIDATED = Path("data/validated")
REPORT = Path("data/evaluated/report.json")
EVIDENCE = Path("data/evaluated/evidence")
QUANTIZED = Path("data/quantized")
OUTPUT = Path("data/promoted")
# Texts of each side of which the served model has to give the vectors that were evaluated.
SERVED_TEXTS = 16
# Tags that an earlier judgement may have left.
JUDGED = ("metric.", "gate.", "refused_because", "warned_of")


def main() -> None:
    """Promote the release of the recipe."""
    params = load()
    release = QUANTIZED / params.name
    recorded = params.model_dump(mode="json", include={"name", "seed", "promote"})
    with stage_run("promote", recorded, [release, FIGURES, REPORT, EVIDENCE, VALIDATED]) as run:
        assert isinstance(run, StageRun), "promote is one process"
        promotion, verdicts = promote(params, release, run, OUTPUT)
    print(table(verdicts))
    print(next_steps(promotion, redacted(tracking_uri()).replace(f"{Path.cwd()}/", ""), OUTPUT / "report.html"))


def promote(params: Recipe, release: Path, run: StageRun, output: Path) -> tuple[dict[str, Any], list[Verdict]]:
    """Register a release, or find it where it is registered already; judge it, and decide where nobody is asked.

    Returns:
        (what version.json holds, the verdicts).

    Raises:
        ValueError: for a gate on a figure that is not there.
        RuntimeError: when the logged model does not give unit vectors for every task.
    """
    from stages.evaluation.evidence import load_evidence

    run_id = run.run_id  # MLflow's database is there from here on
    recipe, metrics = params.promote, json.loads(FIGURES.read_text(encoding="utf-8"))
    client, name = store.registry(), recipe.registered_model
    champion = store.champion_of(client, name)
    evidence = load_evidence(EVIDENCE)
    identity = provenance(release)
    version = store.find_version(client, name, identity["release_digest"])
    version = version or registration.register(client, name, release, run_id)
    figures = release_figures(params, release, metrics, evidence, version, champion)
    verdicts = [] if recipe.mode == "disabled" else judge(figures, params.promote.gates)
    write_evidence(verdicts, output / "evidence")
    write_report(params, verdicts, champion, output / "report.html")
    run.log_metrics(metrics["summary"])
    for path in (output / "report.html", *([LOCK] if LOCK.exists() else [])):
        run.log_artifact(path)
    run.log_artifact(output / "evidence", store.EVIDENCE)
    tags = identity | {"evidence_digest": digest(output / "evidence"), "evidence_run_id": run_id}
    tags |= {"release": params.name, "build_run_id": run.parent_run_id, "gate_mode": recipe.mode}
    tags |= {"data_digest": digest(CURATED), "judged_against": champion.version if champion else store.NONE}
    tags |= verdict_tags(recipe.mode, metrics["summary"], verdicts)
    store.set_tags(client, version, store.as_tags(tags), forget=JUDGED)
    number = str(version.version)
    client.update_model_version(name, number, description=table(verdicts))
    client.set_registered_model_alias(name, store.CHALLENGER, number)
    objection = sign_off(client, name, number) if recipe.signoff == "automatic" else ""
    promotion = outcome(client, name, number, verdicts) | {"objection": objection, "signoff": recipe.signoff}
    (output / "version.json").write_text(json.dumps(promotion, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return promotion, verdicts


def sign_off(client: "MlflowClient", name: str, number: str) -> str:
    """Make the version champion, or say what stands against it."""
    decision = decisions.Decision(True, "signoff: automatic", "no gate refuses it", "automatic")
    try:
        decisions.decide(client, name, number, decision, approvals=1)
    except decisions.NotAllowedError as error:
        return str(error)
    return ""


def outcome(client: "MlflowClient", name: str, number: str, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """What version.json says of a version."""
    version = client.get_model_version(name, number)
    return {
        "name": name,
        "version": number,
        "aliases": sorted(version.aliases),
        "validation_status": version.tags["validation_status"],
        "refused_because": refusals(verdicts),
        "warned_of": gates.warnings(verdicts),
        "gates": [one.as_dict() for one in verdicts],
        "release_digest": version.tags["release_digest"],
        "run_id": version.run_id,
    }


def release_figures(
    params: Recipe,
    release: Path,
    metrics: Mapping[str, Any],
    evidence: "Evidence",
    version: "ModelVersion",
    champion: "ModelVersion | None",
) -> dict[str, Figure]:
    """Every figure that a gate may name; another criterion is another line here."""
    from stages.evaluation.data_gates import data_figures, mteb_figures

    lineage = json.loads((release / "lineage.json").read_text(encoding="utf-8"))
    return {
        **evaluated_figures(metrics),
        **format_figures(release),
        **data_figures(CURATED, VALIDATED, lineage, params.promote.allowed_licenses),
        **mteb_figures(metrics["mteb_overlap"]),
        **served_figures(version, evidence),
        **champion_figures(params, evidence, champion),
    }


def evaluated_figures(metrics: Mapping[str, Any]) -> dict[str, Figure]:
    """The evaluation's summary with its intervals."""
    return {name: Figure(value, **metrics["intervals"].get(name, {})) for name, value in metrics["summary"].items()}


def format_figures(release: Path) -> dict[str, Figure]:
    """`formats_left_out`: formats of the recipe that do not agree with torch, and so are not in the release."""
    formats = json.loads((release / "parity.json").read_text(encoding="utf-8"))["formats"]
    left_out = sorted(name for name, one in formats.items() if not one["released"])
    return {"formats_left_out": Figure(len(left_out), note=", ".join(left_out))}


def served_figures(version: "ModelVersion", evidence: "Evidence") -> dict[str, Figure]:
    """`served_cosine_min`: of what the registered model gives, to the vectors that were evaluated (float16)."""
    from stages.corpus.tables import read_split

    source, vectors = next(iter(evidence.vectors.items()))
    rows = read_split(CURATED, "pairs", "test", [source])[:SERVED_TEXTS]
    texts = {side: rows[side].to_pylist() for side in vectors}
    return {"served_cosine_min": Figure(registration.served_cosine(version, texts, vectors))}


def champion_figures(params: Recipe, evidence: "Evidence", champion: "ModelVersion | None") -> dict[str, Figure]:
    """The release beside the champion on the same rows; where it cannot be compared, not-a-number and the reason."""
    from stages.evaluation import champion_comparison as comparison

    tasks = list(evidence.tests)
    if champion is None:
        return comparison.not_comparable(tasks, "there is no champion", None)
    try:
        theirs = comparison.champion_on_our_rows(evidence, champion_evidence(champion), scored_again(params, champion))
        return comparison.compare_with_champion(evidence, theirs, params.seed, params.evaluate.num_resamples)
    except Exception as error:  # whatever it is that is wrong with an older release: the reason goes to the owner
        note = f"not comparable with champion {champion.version} ({type(error).__name__}: {error})"
        return comparison.not_comparable(tasks, redacted(note), float("nan"))


def champion_evidence(champion: "ModelVersion") -> "Evidence | None":
    """What the champion's evaluation left; None where it left nothing, so that its models are scored again."""
    from mlflow.exceptions import MlflowException

    from stages.evaluation.evidence import load_evidence

    try:
        folder = store.evidence_of(champion)
    except (MlflowException, OSError):
        return None
    return None if folder is None else load_evidence(folder)


def scored_again(params: Recipe, champion: "ModelVersion") -> Any:
    """Scores the champion's models on rows that it was not scored on; loads them only then."""

    def again(sources: Mapping[str, Sequence[str]]) -> "Evidence":
        import torch

        from stages.evaluation.champion_comparison import score_adapters
        from stages.evaluation.compared_models import ReleasedModels

        torch.set_num_threads(params.engine.threads)
        models = ReleasedModels(store.served_models(store.registry(), champion), params.engine.precision)
        return score_adapters(models, CURATED, sources, params.seed)

    return again


def write_evidence(verdicts: Sequence[Verdict], folder: Path) -> None:
    """What the release was judged by, in one folder whose digest stands for all of it."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(EVIDENCE, folder)
    shutil.copy(FIGURES, folder)
    text = json.dumps([one.as_dict() for one in verdicts], indent=2) + "\n"
    (folder / "verdicts.json").write_text(text, encoding="utf-8")


def write_report(params: Recipe, verdicts: Sequence[Verdict], champion: "ModelVersion | None", path: Path) -> None:
    """The evaluation's report again, with every gate's verdict and what changed since the champion."""
    from stages.evaluation.champion_comparison import index_statement
    from stages.reporting.report import render_report

    contents, recipe = json.loads(REPORT.read_text(encoding="utf-8")), params.promote
    moved = champion_queries(champion) if champion else {}
    known = contents["about"].get("queries", {})
    about = contents["about"] | {
        # Its gates may be others than when it was evaluated.
        "recipe": contents["about"].get("recipe", {}) | {"promote": recipe.model_dump(mode="json", by_alias=True)},
        "mode": recipe.mode,
        "gates": [one.as_dict() for one in verdicts],
        "champion": str(champion.version) if champion else None,
        "index": index_statement(verdicts),
        "queries": {source: found | {"champion": moved.get(source)} for source, found in known.items()},
    }
    path.write_text(render_report(contents["metrics"], contents["curves"], about), encoding="utf-8")


def champion_queries(champion: "ModelVersion") -> dict[str, dict[str, Any]]:
    """Queries that moved most since the champion, by retrieval source of which it was evaluated on the same rows."""
    from stages.evaluation.evidence import load_evidence
    from stages.evaluation.queries import moved_queries

    try:
        theirs = champion_evidence(champion)
    except Exception:  # an older release's: the gates beside the champion say what is wrong with it
        return {}
    if theirs is None:
        return {}
    ours, known = load_evidence(EVIDENCE), theirs.tests.get("retrieval", {})
    same = [source for source, rows in ours.tests["retrieval"].items() if known.get(source) == rows]
    return moved_queries(CURATED, {source: ours.vectors[source] for source in same}, theirs.vectors)


def verdict_tags(mode: str, summary: Mapping[str, float], verdicts: Sequence[Verdict]) -> dict[str, str | None]:
    """The figures, the gates and the outcome, as tags of the version."""
    tags: dict[str, str | None] = {f"metric.{name}": f"{value:.6g}" for name, value in summary.items()}
    tags |= {f"gate.{one.metric}": f"{one.word}: {one.shown} ({one.limits})" for one in verdicts}
    reasons, warnings = ("; ".join(found(verdicts)) or None for found in (refusals, gates.warnings))
    return tags | {
        "validation_status": gates.status(mode, verdicts),
        "refused_because": reasons,
        "warned_of": warnings,
    }


if __name__ == "__main__":
    main()
