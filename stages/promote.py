"""The last stage: judge the release by its gates, register it in MLflow, and sign it off or leave that to a person.

Every release becomes a model version with alias `challenger`, also one that its gates refuse: `dvc repro` did build it, its
report exists, and the reasons belong in the registry. A refused version gets no `champion` alias, and the stage still ends
with success, saying so aloud. A version that was `champion` already is never taken down here, since whatever serves
`models:/<name>@champion` would stop: the table says what to do.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stages.training.tracking import digest, git_state, redacted, stage_run, tracking_uri

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

Signoff = Literal["automatic", "manual"]
Limits = tuple[float | None, float | None]


@dataclass(frozen=True)
class Verdict:
    """One gate: a figure of the evaluation against its limits, both inclusive; not-a-number passes no gate."""

    metric: str
    figure: float
    min: float | None
    max: float | None

    @property
    def passed(self) -> bool:
        """Whether the figure is within the limits."""
        above = self.min is None or self.figure >= self.min
        below = self.max is None or self.figure <= self.max
        return above and below and self.figure == self.figure

    @property
    def limit(self) -> str:
        """The limits in words, e.g. `>= 0.85`."""
        bounds = {">=": self.min, "<=": self.max}
        return " and ".join(f"{sign} {bound:g}" for sign, bound in bounds.items() if bound is not None)

    @property
    def word(self) -> str:
        """`passed` or `refused`."""
        return "passed" if self.passed else "refused"


def judge(summary: Mapping[str, float], gates: Mapping[str, Limits]) -> list[Verdict]:
    """Hold each gate against the figure of its name.

    Raises:
        ValueError: when a gate names a figure that the evaluation does not have, or has no limit.
    """
    if absent := sorted(set(gates) - set(summary)):
        raise ValueError(
            f"promote.gates: no figure named {', '.join(absent)} in {METRICS}; it has {', '.join(sorted(summary))}"
        )
    if limitless := sorted(name for name, limits in gates.items() if limits == (None, None)):
        raise ValueError(f"promote.gates: neither min nor max for {', '.join(limitless)}")
    return [Verdict(name, float(summary[name]), *limits) for name, limits in gates.items()]


def promote(
    *,
    registered_model: str,
    signoff: Signoff,
    gates: Mapping[str, Limits],
    summary: Mapping[str, float],
    release: Path,
    run_id: str,
    parent_run_id: str,
) -> dict[str, Any]:
    """Register a release, or find it where it is registered already, and set its tags and aliases.

    Args:
        registered_model: name in MLflow's registry.
        signoff: `automatic` makes a release that passes its gates `champion`; `manual` leaves that to a person.
        gates: limits by name of figure.
        summary: the evaluation's figures by name.
        release: the release's folder, with its models in `merged/`.
        run_id: MLflow run to which the model is logged.
        parent_run_id: MLflow run of the build.

    Returns:
        What data/promoted/version.json holds.

    Raises:
        ValueError: for gates that cannot be judged.
        RuntimeError: when the logged model does not give unit vectors for every task.
    """
    verdicts = judge(summary, gates)
    refused = [f"{verdict.metric} {verdict.figure:.4g} is not {verdict.limit}" for verdict in verdicts if not verdict.passed]
    tags = identity_tags(release) | {"build_run_id": parent_run_id}
    client = registry()
    registered = find_version(client, registered_model, tags["release_digest"])
    registered = registered or register(client, registered_model, release, run_id, tags)
    number = str(registered.version)
    set_verdict_tags(client, registered, tags | verdict_tags(summary, verdicts, refused))
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
        "gates": [vars(verdict) | {"limit": verdict.limit, "verdict": verdict.word} for verdict in verdicts],
        "signoff": signoff,
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
    """What the release is made from, as far as it is known: each tag lets somebody else restore or compare it."""
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
    return max(found, key=lambda one: int(one.version)) if found else None


def register(client: "MlflowClient", name: str, release: Path, run_id: str, tags: Mapping[str, str]) -> "ModelVersion":
    """Log the release as a pyfunc model, load it back, ask it for vectors, and only then make it a version."""
    import mlflow
    import pandas as pd

    example = pd.DataFrame({"text": ["a first sentence to embed", "a second one"]})
    with mlflow.start_run(run_id=run_id):
        model = mlflow.pyfunc.log_model(
            name="embedder",
            python_model=str(SERVING),
            artifacts={"merged": str(release / "merged")},
            signature=signature(),
            input_example=(example, {"task": "retrieval", "dimensions": 0, "prompt_name": "document"}),
            pip_requirements=[f"{package}=={installed_version(package).partition('+')[0]}" for package in SERVED_WITH],
        )
    check_served(model.model_uri, example, sorted(path.name for path in (release / "merged").iterdir()))
    registered = mlflow.register_model(model.model_uri, name, tags=dict(tags))
    return client.get_model_version(name, str(registered.version))


def signature() -> "ModelSignature":
    """One column of texts in, one row of float32 a text out. The column is unnamed so that a plain list is accepted too."""
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec

    return ModelSignature(
        inputs=Schema([ColSpec("string")]),
        outputs=Schema([TensorSpec(np.dtype("float32"), (-1, -1))]),
        params=ParamSchema([
            ParamSpec("task", "string", "retrieval"),
            ParamSpec("dimensions", "long", 0),
            ParamSpec("prompt_name", "string", "document"),
        ]),
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
            raise RuntimeError(f"promote: task {task} of {model_uri} gives vectors of length {norms}, expected 1")


def verdict_tags(summary: Mapping[str, float], verdicts: Sequence[Verdict], refused: Sequence[str]) -> dict[str, str]:
    """The figures, the gates and the outcome, as tags of the version."""
    tags = {f"metric.{name}": f"{value:.6g}" for name, value in summary.items()}
    tags |= {f"gate.{one.metric}": f"{one.word}: {one.figure:.4g} ({one.limit})" for one in verdicts}
    tags["validation_status"] = "refused" if refused else "passed"
    return tags | ({"refused_because": "; ".join(refused)} if refused else {})


def set_verdict_tags(client: "MlflowClient", registered: "ModelVersion", tags: Mapping[str, str]) -> None:
    """Give the version these tags, and take away an earlier verdict's that no longer hold."""
    number = str(registered.version)
    for name in registered.tags:
        if name not in tags and (name.startswith(("metric.", "gate.")) or name == "refused_because"):
            client.delete_model_version_tag(registered.name, number, name)
    for name, value in tags.items():
        client.set_model_version_tag(registered.name, number, name, value)


def table(verdicts: Sequence[Verdict]) -> str:
    """The gates as a Markdown table with aligned columns: for a terminal and for MLflow's page of the version."""
    rows = [("gate", "figure", "limit", "verdict")]
    rows += [(one.metric, f"{one.figure:.4f}", one.limit, one.word) for one in verdicts]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def outcome(promotion: Mapping[str, Any], store: str) -> str:
    """What happened and what the release owner can do next, in words."""
    name, number = promotion["name"], promotion["version"]
    champion = "champion" in promotion["aliases"]
    client = f"from mlflow import MlflowClient; MlflowClient('{store}')"
    lines = [f"{name} version {number}: {', '.join(promotion['aliases'])}"]
    if reasons := promotion["refused_because"]:
        lines.append(f"REFUSED by its gates, not signed off: {'; '.join(reasons)}")
        if champion:
            lines += ["It was champion before and still is. To take it down:"]
            lines += [f"  python -c \"{client}.delete_registered_model_alias('{name}', 'champion')\""]
    elif champion:
        lines.append(f"Serve it: MLFLOW_TRACKING_URI={store} mlflow models serve --env-manager local -m models:/{name}@champion")
    else:
        lines += ["It passed its gates and waits for a person's sign-off. Read data/evaluated/report.html, then either"]
        lines += [f"  mlflow ui --backend-store-uri {store}   (Models > {name} > Version {number} > Aliases: champion)"]
        lines += [f"  python -c \"{client}.set_registered_model_alias('{name}', 'champion', '{number}')\""]
    return "\n".join(lines)


def main() -> None:
    """Promote the release of the recipe."""
    from stages import params

    recipe = params.load()
    section = recipe.promote
    release = Path("data/quantized") / recipe.name
    recorded = {"name": recipe.name, "seed": recipe.seed, "promote": section.model_dump(mode="json")}
    with stage_run("promote", recorded, [release, METRICS, REPORT]) as run:
        summary = json.loads(METRICS.read_text(encoding="utf-8"))["summary"]
        gates = {name: (gate.min, gate.max) for name, gate in section.gates.items()}
        run.log_metrics(summary)
        for path in (REPORT, LOCK):
            if path.exists():
                run.log_artifact(path)
        promotion = promote(
            registered_model=section.registered_model,
            signoff=section.signoff,
            gates=gates,
            summary=summary,
            release=release,
            run_id=run.run_id,
            parent_run_id=run.parent_run_id,
        )
        PROMOTED.parent.mkdir(parents=True, exist_ok=True)
        PROMOTED.write_text(json.dumps(promotion, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    print(table(judge(summary, gates)))
    print(outcome(promotion, store_for_people()))


def store_for_people() -> str:
    """The store's address as one would type it, without a password."""
    uri = redacted(tracking_uri())
    return uri.replace(f"{Path.cwd()}/", "")


if __name__ == "__main__":
    main()
