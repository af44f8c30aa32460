"""Quantize: the release, as other people's tools load it, without this project and without remote code.

Writes data/quantized/<name>: base/, adapters/<task>/ (PEFT), merged/<task>/ (Sentence Transformers), a folder for each
further format that agrees with torch (onnx/, onnx-int8/, openvino-int8/), calibration.json (ranges of embeddings in
int8), parity.json and parity/ (how near each format is, and the texts to prove it again), lineage.json, README.md and
SHA256SUMS. Beside it metrics.json, the same figures for `dvc metrics`, and weights.json, those of int8 weights for the
evaluation.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.recipe.fields import TASKS, Task
from stages.recipe.recipe import Recipe, load

if TYPE_CHECKING:
    from stages.modeling.encoder import Encoder
    from stages.release.format_comparison import Reading
    from stages.release.formats import Kind
    from stages.release.parity import Report
    from stages.release.parity_samples import Samples

CURATED = Path("data/curated")
EXTENDED = Path("data/extended")
ADAPTED = Path("data/adapted")
OUTPUT = Path("data/quantized")
LOCK = Path("dvc.lock")
# What the weights went through before this stage.
UPSTREAM = ("curate", "embed", "mine", "distill", "extend", "adapt")


def main() -> None:
    """Run the stage."""
    params = load()
    from stages.release.checksums import SUMS
    from stages.release.lineage import run_ids
    from stages.tracking.runs import LINEAGE, digest, stage_run, write_lineage

    section = params.model_dump(include={"name", "seed", "engine", "quantize"})
    with stage_run(stage="quantize", params=section, inputs=[CURATED, EXTENDED, ADAPTED]) as run:
        report = quantize(params, OUTPUT)
        run.log_metrics(
            {
                f"{name}.{task}.{figure}": value
                for name, one in report.items()
                for task, figures in one["tasks"].items()
                for figure, value in figures.items()
            }
        )
    # Ids of runs differ from one build to the next: they stand beside the release, bound to it by its checksums.
    own = json.loads((LINEAGE / "quantize.json").read_text(encoding="utf-8"))
    sums, runs = digest(OUTPUT / params.name / SUMS), run_ids(LINEAGE, (*UPSTREAM, "quantize"))
    write_lineage("quantize", own | {"release": params.name, "sha256sums": sums, "run_ids": runs})
    for name, one in report.items():
        print(f"{name:14} " + ("released" if one["released"] else f"NOT released: {'; '.join(one['reasons'])}"))


def quantize(params: Recipe, output: Path) -> "Report":
    """Write the release; returns how near to torch each format is, and which are released.

    Raises:
        ValueError: the merged models or the adapters do not give the vectors of the model that was trained.
    """
    import torch

    from stages.release.checksums import write_checksums, write_json
    from stages.release.parity import parity, release_or_remove
    from stages.release.parity_samples import save_samples

    torch.set_num_threads(params.engine.threads)
    shutil.rmtree(output, ignore_errors=True)
    release = output / params.name
    texts = _calibration_texts(params)
    samples, num_fixed = _write_models(params, release, texts)
    asked = params.quantize.parity
    limits: dict[Kind, dict[str, float]] = {"float32": asked.float32.model_dump(), "int8": asked.int8.model_dump()}
    names = ("adapters", "merged", *params.quantize.formats)
    report = parity(release, names, samples, limits, params.engine.threads)
    _add_sizes(release, report)
    release_or_remove(release, report)
    # Texts of the corpus have licences of their own and stay here.
    save_samples(release, samples.first(num_fixed))
    write_json(release / "parity.json", {"limits": limits, "formats": report})
    write_json(release / "lineage.json", _lineage(params))
    metrics = {name: {"released": int(one["released"]), **one["tasks"]} for name, one in report.items()}
    write_json(output / "metrics.json", metrics)
    write_json(output / "weights.json", _int8_weights(report))
    _write_cards(params, release, report)
    write_checksums(release)
    return report


def _write_models(params: Recipe, release: Path, texts: Sequence[str]) -> tuple["Samples", int]:
    """Base, adapters and every format of each task; returns the samples, and how many of them are the fixed ones."""
    from tqdm import tqdm

    from stages.modeling.adapters import load_adapter, merge_adapter
    from stages.modeling.encoder import saved_encoder
    from stages.release.calibration import calibration, embedding_limits
    from stages.release.checksums import write_json
    from stages.release.parity_samples import Samples
    from stages.release.parity_texts import Case, fixed_cases
    from stages.release.reference import embedded_cases, reference
    from stages.release.writers import Writer

    # What the release is read with from here on, whatever the phases were trained with.
    at_inference = (params.quantize.rope_theta, params.quantize.max_tokens)
    longest, num_texts = params.quantize.parity.max_tokens, params.quantize.parity.num_texts
    fixed = fixed_cases(longest, params.quantize.max_tokens)
    cases = [*fixed, *(Case("document", text) for text in texts[:num_texts])]
    base = saved_encoder(EXTENDED / "student", *at_inference)
    base.save(release / "base")
    embedded = embedded_cases(base, cases, longest)
    writer = Writer(release, params.quantize.formats)
    readings: dict[str, Reading] = {}
    limits: dict[str, dict[str, float]] = {}
    for task in tqdm(TASKS, desc="quantize", unit="adapter"):
        _copy_adapter(ADAPTED / task, release / "adapters" / task, params.name)
        encoder = saved_encoder(EXTENDED / "student", *at_inference)
        prompts = prompts_of(encoder, task)
        load_adapter(encoder, task, ADAPTED / task)
        readings[task] = reference(encoder, cases, embedded, prompts)
        merge_adapter(encoder)
        writer.write(encoder, prompts, task)
        limits[task] = embedding_limits(encoder.encode(texts, "document"), params.evaluate.truncate_dims)
    write_json(release / "calibration.json", calibration(limits))
    return Samples(cases, embedded, readings), len(fixed)


def _copy_adapter(source: Path, target: Path, base: str) -> None:
    """Copy an adapter without its curve, naming the release as its base instead of a folder of this machine."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("curve.csv"))
    config = json.loads((target / "adapter_config.json").read_text(encoding="utf-8"))
    text = json.dumps(config | {"base_model_name_or_path": base}, indent=2) + "\n"
    (target / "adapter_config.json").write_text(text, encoding="utf-8")


def prompts_of(encoder: "Encoder", task: Task) -> dict[str, str]:
    """Prompt of each side: every task but retrieval reads both sides as documents."""
    document = encoder.settings.prompts["document"]
    return {"query": encoder.settings.prompts["query"] if task == "retrieval" else document, "document": document}


def _calibration_texts(params: Recipe) -> list[str]:
    """Training texts spread over the sources: parity and ranges are never measured on the test split."""
    import numpy as np

    from stages.corpus.tables import read_split

    documents = read_split(CURATED, "pairs", "train")["document"].to_pylist()
    wanted = min(params.quantize.num_calibration_texts, len(documents))
    rows = np.random.default_rng(params.seed).choice(len(documents), wanted, replace=False)
    return [documents[row] for row in rows]


def _add_sizes(release: Path, report: "Report") -> None:
    """Megabytes (10^6 bytes) of a task's folder, by format and task."""
    for name, one in report.items():
        for task, figures in one["tasks"].items():
            files = (path for path in (release / name / task).rglob("*") if path.is_file())
            figures["megabytes"] = round(sum(path.stat().st_size for path in files) / 1e6, 3)


def _int8_weights(report: "Report") -> dict[str, dict[str, float]]:
    """What int8 weights cost and save, by task: OpenVINO's, else ONNX's, beside the float model.

    Raises:
        ValueError: neither could be read.
    """
    for name in ("openvino-int8", "onnx-int8"):
        if name in report and report[name]["tasks"]:
            whole = report["merged"]["tasks"]
            kept = report[name]["tasks"].items()
            return {task: row | {"float_megabytes": whole[task]["megabytes"]} for task, row in kept}
    reasons = {name: one["reasons"] for name, one in report.items() if one["reasons"]}
    raise ValueError(f"no format with int8 weights could be read: {reasons}")


def _lineage(params: Recipe) -> dict[str, Any]:
    """Where the weights come from: sources with licences and rows, teacher, recipe, code and data."""
    from stages.release.lineage import lineage

    counts = json.loads((CURATED / "counts.json").read_text(encoding="utf-8"))
    sources = [
        {
            "name": source.name,
            "kind": source.kind,
            "language": source.language,
            "license": source.license,
            "packages": source.packages,
            "rows": counts[source.name],
            "trained_on": source.name in params.trained_on(),
        }
        for source in params.curate.sources
    ]
    facts = {
        "name": params.name,
        "license": params.quantize.license,
        "teacher": {"path": params.embed.teacher.name, "license": params.embed.license},
        "sources": sources,
    }
    sections = (params.engine, params.curate, params.embed, params.mine, params.distill, params.extend, params.adapt)
    recipe = [params.seed, *(section.model_dump(mode="json") for section in (*sections, params.quantize))]
    return lineage(facts, recipe, LOCK, UPSTREAM)


def _write_cards(params: Recipe, release: Path, report: Mapping[str, Any]) -> None:
    from stages.reporting.card import render_card

    about = {
        "name": params.name,
        "license": params.quantize.license,
        "teacher": params.embed.teacher.name,
        "dims": params.evaluate.truncate_dims,
        # The card says what the weights were trained on: not what is only tested on.
        "sources": [one.model_dump() for one in params.curate.sources if one.name in params.trained_on()],
        "pooling": json.loads((release / "base/encoder.json").read_text(encoding="utf-8"))["pooling"],
        "formats": report,
    }
    (release / "README.md").write_text(render_card(about, task=None), encoding="utf-8")
    for task in TASKS:
        (release / "merged" / task / "README.md").write_text(render_card(about, task=task), encoding="utf-8")


if __name__ == "__main__":
    main()
