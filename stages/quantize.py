"""Quantize: write the release, which other people's tools load without this project and without remote code.

Writes data/quantized/<name>: base/, adapters/<task>/ (PEFT), merged/<task>/ (Sentence Transformers), a folder for each
further format that agrees with torch (onnx/, onnx-int8/, openvino-int8/), calibration.json (ranges of embeddings in
int8), parity.json and parity/ (how closely each format agrees, and the texts to verify it again), lineage.json,
README.md and SHA256SUMS. Tasks and formats are those that the recipe chooses.
"""

if __name__ == "__main__":  # The entry checks the recipe before torch is imported.
    from stages.entry import run_stage

    run_stage("quantize")

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from stages.corpus.tables import read_table
from stages.modeling.adapters import load_adapter, merge_adapter
from stages.modeling.encoder import saved_encoder
from stages.recipe.fields import TEXT_FIELDS
from stages.recipe.paths import ADAPTED, CURATED, EXTENDED, LINEAGE, QUANTIZED
from stages.recipe.recipe import Recipe
from stages.release.calibration import calibration, embedding_limits
from stages.release.checksums import SUMS, write_checksums, write_json
from stages.release.format_comparison import FormatOutput
from stages.release.parity import Limits, ParityReport, add_sizes, check_parity, remove_failed_formats
from stages.release.parity_samples import Samples, save_samples
from stages.release.parity_texts import Case, fixed_cases
from stages.release.release_lineage import lineage, run_ids
from stages.release.torch_output import task_prompts, tokenized, torch_output
from stages.release.writers import Writer, copy_adapter
from stages.reporting.card import write_cards
from stages.tracking.digests import digest
from stages.tracking.lineage import write_lineage
from stages.tracking.runs import stage_run

LOCK = Path("dvc.lock")
# Stages that the weights went through before this one.
UPSTREAM = ("curate", "embed", "mine", "distill", "extend", "adapt")


def main(recipe: Recipe) -> None:
    """Write the release and record its figures in MLflow."""
    recorded = recipe.model_dump(include={"name", "seed", "engine", "quantize"})
    with stage_run("quantize", recorded, [CURATED, EXTENDED, ADAPTED]) as run:
        report = quantize(recipe, QUANTIZED)
        for name, result in report.items():
            for task, figures in result["tasks"].items():
                run.log_metrics({f"{name}.{task}.{figure}": value for figure, value in figures.items()})
    # Run ids differ between builds, so they are in data/lineage; the digest of SHA256SUMS binds them to the release.
    record = json.loads((LINEAGE / "quantize.json").read_text(encoding="utf-8"))
    record |= {"release": recipe.name, "sha256sums": digest(QUANTIZED / recipe.name / SUMS)}
    write_lineage("quantize", record | {"run_ids": run_ids((*UPSTREAM, "quantize"))})
    for name, result in report.items():
        reasons = "; ".join(result["reasons"])
        print(f"{name:14} {'released' if result['released'] else f'NOT released: {reasons}'}")


def quantize(recipe: Recipe, output: Path) -> ParityReport:
    """Write the release; return how closely each format agrees with torch, and which formats are released.

    Raises:
        ValueError: the merged models or the adapters do not give the embeddings of the trained model.
    """
    torch.set_num_threads(recipe.engine.threads)
    shutil.rmtree(output, ignore_errors=True)
    release = output / recipe.name
    asked = recipe.quantize.parity
    fixed = fixed_cases(asked.max_tokens, recipe.quantize.max_tokens)
    samples = write_models(recipe, release, fixed, calibration_texts(recipe))
    limits: Limits = {"float32": asked.float32.model_dump(), "int8": asked.int8.model_dump()}
    formats = ("adapters", "merged", *recipe.quantize.formats)
    report = check_parity(release, formats, samples, limits, recipe.engine.threads)
    add_sizes(release, report)
    remove_failed_formats(release, report)
    # Only the fixed texts are released: texts of the corpus have licences of their own.
    save_samples(release, samples.first_cases(len(fixed)))
    write_json(release / "parity.json", {"limits": limits, "formats": report})
    write_json(release / "lineage.json", lineage_content(recipe))
    write_cards(release, card_facts(recipe, release, report))
    write_checksums(release)
    return report


def calibration_texts(recipe: Recipe) -> list[str]:
    """Draw training documents of all sources: parity and int8 ranges are never measured on the test split.

    Where there are no pairs, the texts of another kind take the place of documents.
    """
    texts = (read_table(CURATED / kind / "train.parquet")[names[-1]].to_pylist() for kind, names in TEXT_FIELDS.items())
    documents: list[str] = next(filter(None, texts))
    count = min(recipe.quantize.num_calibration_texts, len(documents))
    rows = np.random.default_rng(recipe.seed).choice(len(documents), count, replace=False)
    return [documents[row] for row in rows]


def write_models(recipe: Recipe, release: Path, fixed: Sequence[Case], texts: Sequence[str]) -> Samples:
    """Write base, adapters, every format of each task and calibration.json; return torch's output for the cases.

    Args:
        fixed: cases that every release has; `quantize.parity.num_texts` of the texts are added.
        texts: training texts, on which the ranges of int8 embeddings are measured.
    """
    # RoPE base and longest text of the release, which may differ from those of the training phases.
    at_inference = (recipe.quantize.rope_theta, recipe.quantize.max_tokens)
    cases = [*fixed, *(Case("document", text) for text in texts[: recipe.quantize.parity.num_texts])]
    base = saved_encoder(EXTENDED / "student", *at_inference)
    base.save(release / "base")
    longest = recipe.quantize.parity.max_tokens
    embedded = [row for row, ids in enumerate(tokenized(base, cases, "retrieval")) if len(ids) <= longest]
    writer = Writer(release, recipe.quantize.formats)
    references: dict[str, FormatOutput] = {}
    limits: dict[str, dict[str, float]] = {}
    for task in tqdm(recipe.adapt.tasks, desc="quantize", unit="adapter"):
        copy_adapter(ADAPTED / task, release / "adapters" / task, recipe.name)
        encoder = saved_encoder(EXTENDED / "student", *at_inference)
        load_adapter(encoder, task, ADAPTED / task)
        references[task] = torch_output(encoder, cases, embedded, task)
        merge_adapter(encoder)
        writer.write(encoder, task_prompts(encoder, task), task)
        limits[task] = embedding_limits(encoder.encode(texts, "document"), recipe.evaluate.truncate_dims)
    write_json(release / "calibration.json", calibration(limits))
    return Samples(cases, embedded, references)


def lineage_content(recipe: Recipe) -> dict[str, Any]:
    """Content of lineage.json: sources with licences and rows, teacher, recipe, code and data."""
    rows = json.loads((CURATED / "counts.json").read_text(encoding="utf-8"))
    sources = [
        source.model_dump(include={"name", "kind", "language", "license", "packages"})
        | {"rows": rows[source.name], "trained_on": source.name in recipe.trained_on()}
        for source in recipe.curate.sources
    ]
    teacher = {"path": recipe.embed.teacher.name, "license": recipe.embed.license}
    facts = {"name": recipe.name, "license": recipe.quantize.license, "teacher": teacher, "sources": sources}
    sections = (recipe.engine, recipe.curate, recipe.embed, recipe.mine, recipe.distill, recipe.extend, recipe.adapt)
    values = [recipe.seed, *(section.model_dump(mode="json") for section in (*sections, recipe.quantize))]
    return lineage(facts, values, LOCK, UPSTREAM)


def card_facts(recipe: Recipe, release: Path, report: ParityReport) -> dict[str, Any]:
    """Facts that the model cards state."""
    return {
        "name": recipe.name,
        "license": recipe.quantize.license,
        "teacher": recipe.embed.teacher.name,
        "tasks": recipe.adapt.tasks,
        "dims": recipe.evaluate.truncate_dims,
        # Sources that are only tested on do not belong to the card.
        "sources": [source.model_dump() for source in recipe.curate.sources if source.name in recipe.trained_on()],
        "pooling": json.loads((release / "base/encoder.json").read_text(encoding="utf-8"))["pooling"],
        "formats": report,
    }
