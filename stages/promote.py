"""The last stage: judge the release by its gates, register it, sign it off or leave that to a person.

Every release becomes a model version with alias `challenger`, also one that its gates refuse: `dvc repro` did
build it, its report exists, and the reasons belong in the registry. A refused version is given no `champion`
alias, and the stage still ends with success, saying so aloud. A version that is `champion` already is never
taken down here, since whatever serves `models:/<name>@champion` would stop: the last lines say how to do it.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stages.metrics.gates import Limits, Verdict, judge, refusals, table
from stages.training.tracking import StageRun, digest, git_state, redacted, stage_run, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature

METRICS = Path("data/evaluated/metrics.json")
REPORT = Path("data/evaluated/report.html")
CURATED = Path("data/curated")
LOCK = Path("dvc.lock")
PROMOTED = Path("data/promoted/version.json")
SERVING = Path(__file__).parent / "modeling" / "serving.py"
SERVED_WITH = ("mlflow", "numpy", "pandas", "sentence-transformers", "torch", "transformers")


def promote(
    *,
    registered_model: str,
    signoff: Literal["automatic", "manual"],
    gates: Mapping[str, Limits],
    summary: Mapping[str, float],
    release: Path,
    run_id: str,
    parent_run_id: str,
) -> dict[str, Any]:
    """Register a release, or find it where it is registered already, and set its tags and aliases.

    Args:
        registered_model: name in MLflow's registry.
        signoff: `automatic` makes a release that passes its gates `champion`, `manual` waits for a person.
        gates: least and most by name of figure.
        summary: the evaluation's figures by name.
        release: the release's folder, with its models in `merged/`.
        run_id: MLflow run to which the model is logged.
        parent_run_id: MLflow run of the build.

    Returns:
        What data/promoted/version.json holds.

    Raises:
        ValueError: for a gate on a figure that is not there.
        RuntimeError: when the logged model does not give unit vectors for every task.
    """
    verdicts = judge(summary, gates)
    refused = refusals(verdicts)
    tags = identity_tags(release) | {"build_run_id": parent_run_id}
    client = registry()
    registered = find_version(client, registered_model, tags["release_digest"])
    registered = registered or register(client, registered_model, release, run_id, tags)
    number = str(registered.version)
    set_tags(client, registered, tags | verdict_tags(summary, verdicts))
    client.update_model_version(registered_model, number, description=table(verdicts))
    client.set_registered_model_alias(registered_model, "challenger", number)
    if signoff == "automatic" and not refused:
        client.set_registered_model_alias(registered_model, "champion", number)
    return {
        "name": registered_model,
        "version": number,
        "aliases": sorted(client.get_model_version(registered_model, number).aliases),
        "validation_status": "refused" if refused else "passed",
        "refused_because": refused,
        "gates": [vars(one) | {"limit": one.limit, "verdict": one.word} for one in verdicts],
        "release_digest": tags["release_digest"],
        "run_id": registered.run_id,
    }


def registry() -> "MlflowClient":
    """A client of the configured store; MLflow's module-level calls use the same one afterwards."""
    import mlflow

    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    mlflow.set_tracking_uri(tracking_uri())
    return mlflow.MlflowClient()


def identity_tags(release: Path) -> dict[str, str]:
    """What the release is made from, as far as that is known, for others to restore or compare it."""
    tags = {"git_sha": git_state()[0], "dvc_lock": lock_digest(), "release_digest": digest(release)}
    tags["data_digest"] = digest(CURATED) if CURATED.exists() else None
    return {name: value for name, value in tags.items() if value is not None}


def lock_digest() -> str | None:
    """SHA-256 of dvc.lock without this stage's own entry, which DVC writes when this stage has ended."""
    from ruamel.yaml import YAML

    if not LOCK.exists():
        return None
    stages = YAML(typ="safe").load(LOCK)["stages"]
    stages.pop("promote", None)
    return hashlib.sha256(json.dumps(stages, sort_keys=True, default=str).encode()).hexdigest()


def find_version(client: "MlflowClient", name: str, release_digest: str) -> "ModelVersion | None":
    """The version that holds this very release, if it is registered already."""
    found = client.search_model_versions(f"name = '{name}' and tags.release_digest = '{release_digest}'")
    return max(found, key=lambda one: int(one.version), default=None)


def register(client: "MlflowClient", name: str, release: Path, run_id: str, tags: Mapping[str, str]) -> "ModelVersion":
    """Log the release as a pyfunc model, load it back, ask it for vectors; only then make it a version."""
    import mlflow
    import pandas as pd

    example = pd.DataFrame({"text": ["a first sentence to embed", "a second one"]})
    parameters = {"task": "retrieval", "prompt": "document", "dimensions": 0, "precision": "float32"}
    with mlflow.start_run(run_id=run_id):
        model = mlflow.pyfunc.log_model(
            name="embedder",
            python_model=str(SERVING),
            artifacts={"merged": str(release / "merged"), "calibration": str(release / "calibration.json")},
            signature=signature(),
            input_example=(example, parameters),
            pip_requirements=[requirement(package) for package in SERVED_WITH],
        )
    check_served(model.model_uri, example, sorted(path.name for path in (release / "merged").iterdir()))
    registered = mlflow.register_model(model.model_uri, name, tags=dict(tags))
    return client.get_model_version(name, str(registered.version))


def requirement(package: str) -> str:
    """Pin of an installed package, without the build's mark that only torch's own index knows (`+cpu`)."""
    return f"{package}=={installed_version(package).partition('+')[0]}"


def signature() -> "ModelSignature":
    """A column of texts in, a row a text out; the column has no name, so that a list will do.

    The row is of float32 unless `precision` says otherwise, which a signature cannot.
    """
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec

    task = ParamSpec("task", "string", "retrieval")
    dimensions = ParamSpec("dimensions", "long", 0)
    prompt = ParamSpec("prompt", "string", "document")
    precision = ParamSpec("precision", "string", "float32")
    return ModelSignature(
        inputs=Schema([ColSpec("string")]),
        outputs=Schema([TensorSpec(np.dtype("float32"), (-1, -1))]),
        params=ParamSchema([task, prompt, dimensions, precision]),
    )


def check_served(model_uri: str, texts: Any, tasks: Sequence[str]) -> None:
    """Load the logged model as a consumer would, and embed with every task.

    Raises:
        RuntimeError: when a task's vectors are not finite and of unit length.
    """
    import mlflow
    import numpy as np

    model = mlflow.pyfunc.load_model(model_uri)
    for task in tasks:
        norms = np.linalg.norm(model.predict(texts, params={"task": task}), axis=1)
        if not np.allclose(norms, 1.0, atol=1e-3):
            raise RuntimeError(f"promote: {task} of {model_uri} gives vectors of length {norms}, expected 1")


def verdict_tags(summary: Mapping[str, float], verdicts: Sequence[Verdict]) -> dict[str, str]:
    """The figures, the gates and the outcome, as tags of the version."""
    tags = {f"metric.{name}": f"{value:.6g}" for name, value in summary.items()}
    tags |= {f"gate.{one.metric}": f"{one.word}: {one.figure:.4g} ({one.limit})" for one in verdicts}
    if reasons := refusals(verdicts):
        return tags | {"validation_status": "refused", "refused_because": "; ".join(reasons)}
    return tags | {"validation_status": "passed"}


def set_tags(client: "MlflowClient", registered: "ModelVersion", tags: Mapping[str, str]) -> None:
    """Give the version these tags, and take away an earlier verdict's that no longer hold."""
    number = str(registered.version)
    for name in registered.tags:
        if name not in tags and (name.startswith(("metric.", "gate.")) or name == "refused_because"):
            client.delete_model_version_tag(registered.name, number, name)
    for name, value in tags.items():
        client.set_model_version_tag(registered.name, number, name, value)


def next_steps(promotion: Mapping[str, Any], store: str) -> str:
    """What happened, in words, and what the release owner can do next.

    Args:
        promotion: what `promote` returned.
        store: address of the MLflow store, as one would type it.
    """
    name, number = promotion["name"], promotion["version"]
    champion = "champion" in promotion["aliases"]
    command = f"  python -c \"from mlflow import MlflowClient; MlflowClient('{store}')"
    lines = [f"{name} version {number}: {', '.join(promotion['aliases'])}"]
    if reasons := promotion["refused_because"]:
        lines += ["REFUSED by its gates, so not signed off:", *(f"  {reason}" for reason in reasons)]
        if champion:
            lines += ["It was champion before, and still is. To take it down:"]
            lines += [f"{command}.delete_registered_model_alias('{name}', 'champion')\""]
    elif champion:
        lines += [f"Serve it: MLFLOW_TRACKING_URI={store} \\"]
        lines += [f"  mlflow models serve --env-manager local -m models:/{name}@champion"]
    else:
        lines += [f"It passed its gates and waits for a person to sign it off. Read {REPORT}, then either"]
        lines += [f"  mlflow ui --backend-store-uri {store}"]
        lines += [f"    and there Model registry > {name} > Version {number} > Aliases: champion; or"]
        lines += [f"{command}.set_registered_model_alias('{name}', 'champion', '{number}')\""]
    return "\n".join(lines)


def main() -> None:
    """Promote the release of the recipe."""
    from stages import params

    recipe = params.load()
    release = Path("data/quantized") / recipe.name
    recorded = {"name": recipe.name, "promote": recipe.promote.model_dump(mode="json")}
    with stage_run("promote", recorded, [release, METRICS, REPORT]) as run:
        assert isinstance(run, StageRun), "promote is one process"
        summary = json.loads(METRICS.read_text(encoding="utf-8"))["summary"]
        gates = {name: (gate.min, gate.max) for name, gate in recipe.promote.gates.items()}
        run.log_metrics(summary)
        for path in (REPORT, LOCK):
            if path.exists():
                run.log_artifact(path)
        promotion = promote(
            registered_model=recipe.promote.registered_model,
            signoff=recipe.promote.signoff,
            gates=gates,
            summary=summary,
            release=release,
            run_id=run.run_id,
            parent_run_id=run.parent_run_id,
        )
        PROMOTED.parent.mkdir(parents=True, exist_ok=True)
        PROMOTED.write_text(json.dumps(promotion, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    print(table(judge(summary, gates)))
    print(next_steps(promotion, redacted(tracking_uri()).replace(f"{Path.cwd()}/", "")))


if __name__ == "__main__":
    main()
