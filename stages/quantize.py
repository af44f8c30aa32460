"""Quantize: the release, as other people's tools load it, without this project and without remote code.

Writes data/quantized/<name>: base/, adapters/<task>/ (PEFT), merged/<task>/ (Sentence Transformers), openvino/<task>/
(int8 weights), calibration.json (int8 ranges of embeddings), lineage.json and README.md; and beside it weights.json,
what int8 weights cost and save.
"""

import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.params import TASKS, Params, Task, load

if TYPE_CHECKING:
    from stages.modeling.encoder import Encoder

CURATED = Path("data/curated")
EXTENDED = Path("data/extended")
ADAPTED = Path("data/adapted")
OUTPUT = Path("data/quantized")
# Of both sides of the comparison with int8 weights.
BATCH_TOKENS = 4096


def main() -> None:
    """Run the stage."""
    params = load()
    from stages.training.tracking import stage_run

    section = params.model_dump(include={"name", "seed", "engine", "quantize"})
    with stage_run(stage="quantize", params=section, inputs=[CURATED, EXTENDED, ADAPTED]) as run:
        weights = quantize(params, OUTPUT)
        for task, figures in weights.items():
            run.log_metrics({f"{task}.{name}": value for name, value in figures.items()})


def quantize(params: Params, output: Path) -> dict[str, dict[str, float]]:
    """Write the release; returns what int8 weights cost and save, by task.

    Raises:
        ValueError: int8 weights move a vector further than the recipe allows.
    """
    import torch
    from tqdm import tqdm

    from stages.modeling.adapters import load_adapter, merge_adapter
    from stages.modeling.encoder import saved_encoder
    from stages.modeling.exports import save_openvino_int8, save_sentence_transformer, write_json

    torch.set_num_threads(params.engine.threads)
    shutil.rmtree(output, ignore_errors=True)
    release = output / params.name
    # What the release is read with from here on, whatever the phases were trained with.
    at_inference = (params.quantize.rope_theta, params.quantize.max_tokens)
    saved_encoder(EXTENDED / "student", *at_inference).save(release / "base")
    texts = _calibration_texts(params)
    calibration: dict[str, dict[str, float]] = {}
    weights: dict[str, dict[str, float]] = {}
    for task in tqdm(TASKS, desc="quantize", unit="adapter"):
        _copy_adapter(ADAPTED / task, release / "adapters" / task, params.name)
        encoder = saved_encoder(EXTENDED / "student", *at_inference)
        load_adapter(encoder, task, ADAPTED / task)
        merge_adapter(encoder)
        save_sentence_transformer(encoder, prompts_of(encoder, task), release / "merged" / task)
        save_openvino_int8(encoder, release / "openvino" / task)
        calibration[task] = _calibrate(params, encoder, texts)
        weights[task] = _compare(params, encoder, release, task, texts[: params.quantize.num_parity_texts])
    write_json(release / "calibration.json", {"int8_limit": calibration})
    write_json(release / "lineage.json", _lineage(params))
    write_json(output / "weights.json", weights)
    _write_cards(params, release, weights)
    return weights


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


def _calibration_texts(params: Params) -> list[str]:
    """Training texts spread over the sources: parity and ranges are never measured on the test split."""
    import numpy as np

    from stages.corpus.tables import read_split

    documents = read_split(CURATED, "pairs", "train")["document"].to_pylist()
    wanted = min(params.quantize.num_calibration_texts, len(documents))
    rows = np.random.default_rng(params.seed).choice(len(documents), wanted, replace=False)
    return [documents[row] for row in rows]


def _calibrate(params: Params, encoder: "Encoder", texts: list[str]) -> dict[str, float]:
    from stages.modeling.exports import embedding_limits

    return embedding_limits(encoder.encode(texts, "document"), params.evaluate.truncate_dims)


def _compare(params: Params, encoder: "Encoder", release: Path, task: Task, texts: list[str]) -> dict[str, float]:
    """Cosine of int8 weights to float on the same texts, sizes in MB (10^6 bytes), and the ratio of their speeds."""
    import numpy as np
    import torch

    from stages.corpus.batches import token_budget_batches
    from stages.modeling.exports import OpenVINOEncoder

    token_ids = encoder.tokenize(texts, "document")
    rows_of = token_budget_batches([len(ids) for ids in token_ids], BATCH_TOKENS)
    batches = [encoder.pad([token_ids[row] for row in rows]) for rows in rows_of]
    graph = OpenVINOEncoder(release / "openvino" / task, params.engine.threads)
    with torch.inference_mode():
        expected, float_seconds = _timed(lambda: np.concatenate([encoder(**batch).numpy() for batch in batches]))
    got, int8_seconds = _timed(lambda: np.concatenate([graph.embed(batch) for batch in batches]))
    cosines = (expected * got).sum(axis=1)
    if cosines.min() < params.quantize.min_cosine:
        raise ValueError(
            f"{task}: int8 weights move a vector to cosine {cosines.min():.4f}, quantize.min_cosine is "
            f"{params.quantize.min_cosine}; the format is not releasable for this model"
        )
    return {
        "cosine_mean": float(cosines.mean()),
        "cosine_min": float(cosines.min()),
        "megabytes": _megabytes(release / "openvino" / task),
        "float_megabytes": (release / "merged" / task / "model.safetensors").stat().st_size / 1e6,
        "speedup": float_seconds / int8_seconds,
    }


def _timed(embed: Any) -> tuple[Any, float]:
    """The result, and the best of three times after it."""
    result = embed()
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        embed()
        seconds.append(time.perf_counter() - started)
    return result, min(seconds)


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.iterdir()) / 1e6


def _lineage(params: Params) -> dict[str, Any]:
    """Where the weights come from: sources with licences and rows, teacher, student."""
    counts = json.loads((CURATED / "counts.json").read_text(encoding="utf-8"))
    return {
        "name": params.name,
        "license": params.quantize.license,
        "teacher": {"path": params.embed.teacher.name, "license": params.embed.license},
        "sources": [
            {
                "name": source.name,
                "kind": source.kind,
                "language": source.language,
                "license": source.license,
                "packages": source.packages,
                "rows": counts[source.name],
            }
            for source in params.curate.sources
        ],
    }


def _write_cards(params: Params, release: Path, weights: dict[str, dict[str, float]]) -> None:
    from stages.reporting.card import render_card

    about = {
        "name": params.name,
        "license": params.quantize.license,
        "teacher": params.embed.teacher.name,
        "dims": params.evaluate.truncate_dims,
        # The card says what the weights were trained on: not what is only tested on.
        "sources": [one.model_dump() for one in params.curate.sources if one.splits.dev + one.splits.test < 1],
        "weights": weights,
    }
    (release / "README.md").write_text(render_card(about, task=None), encoding="utf-8")
    for task in TASKS:
        (release / "merged" / task / "README.md").write_text(render_card(about, task=task), encoding="utf-8")


if __name__ == "__main__":
    main()
