"""Benchmark of the release formats against torch: throughput and cosine on the same batches, measured in turns.

Shapes: B texts, L tokens, N texts in all, D embedding dimension.
"""

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stages.modeling.encoder import Encoder
from stages.modeling.token_batches import token_budget_batches
from stages.release.consumer import onnx_runner, openvino_runner
from stages.release.format_comparison import cosine
from stages.release.formats import OPTIONAL
from stages.release.writers import Writer
from tests.benchmarks.measure import Figure, in_turns, middle, seconds, spread
from tests.benchmarks.students import PROMPTS

PEER = "torch float32"
# Tokens of a batch, as in the stages.
BATCH_TOKENS = 4096
# Cosine to torch and throughput that a release must reach.
TARGETS = {
    "onnx_min_cosine": ">= 0.99999",
    "int8_mean_cosine": ">= 0.998",
    "int8_throughput_ratio": ">= 1.6",
}


def format_speed(build: Callable[[], Encoder], texts: Sequence[str], rounds: int) -> dict[str, Figure]:
    """Measure every optional format; figures named only `int8` are OpenVINO's.

    Args:
        build: makes the student that is exported.
    """
    encoder = build()
    tokens = encoder.tokenize(texts, "document")
    batches = [
        (rows, {name: tensor.numpy() for name, tensor in encoder.pad(tokens.select(rows)).items()})
        for rows in token_budget_batches(tokens.lengths, BATCH_TOKENS)
    ]
    names = [form.name for form in OPTIONAL]
    vectors = {name: np.empty((len(texts), encoder.dimensions), dtype=np.float32) for name in names}

    def embed_by_graph(name: str, run: Callable[[dict[str, Any]], np.ndarray]) -> None:
        for rows, batch in batches:
            vectors[name][rows] = run(batch)

    def embed_by_torch() -> None:
        vectors["torch"] = encoder.encode(texts, "document", BATCH_TOKENS)

    with tempfile.TemporaryDirectory(prefix="stillhouse-formats-") as folder:
        Writer(Path(folder), names).write(encoder, PROMPTS, "retrieval")
        works = {"torch": partial(seconds, embed_by_torch)}
        for name in names:
            runner = openvino_runner if name.startswith("openvino") else onnx_runner
            run = runner(Path(folder) / name / "retrieval", torch.get_num_threads())
            works[name] = partial(seconds, partial(embed_by_graph, name, run))
        for work in works.values():
            work()  # warm
        found = in_turns(works, rounds)
    cosines = {name: cosine(vectors["torch"], vectors[name]) for name in names}
    ratios = {name: middle(found["torch"]) / middle(found[name]) for name in names}
    figures = {
        "onnx_min_cosine": Figure(float(cosines["onnx"].min()), ""),
        "onnx_int8_mean_cosine": Figure(float(cosines["onnx-int8"].mean()), ""),
        "int8_mean_cosine": Figure(float(cosines["openvino-int8"].mean()), ""),
        "onnx_throughput_ratio": _against_torch(ratios["onnx"]),
        "onnx_int8_throughput_ratio": _against_torch(ratios["onnx-int8"]),
        "int8_throughput_ratio": _against_torch(ratios["openvino-int8"]),
        "torch_texts_per_second": Figure(len(texts) / middle(found["torch"]), "texts/s"),
        "formats_spread": Figure(spread(found["torch"]), "of the median"),
    }
    return {name: _with_target(name, figure) for name, figure in figures.items()}


def _against_torch(ratio: float) -> Figure:
    return Figure(ratio, "", PEER, ratio)


def _with_target(name: str, figure: Figure) -> Figure:
    return Figure(figure.value, figure.unit, figure.peer, figure.ratio, TARGETS.get(name))
