"""Release formats that other people's tools load: Sentence Transformers folders, and OpenVINO graphs with int8 weights.

Shapes: B batch, L tokens, D embedding dimension.
"""

import json
import logging
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

# ruff: noqa: E402
# OpenVINO and NNCF report every operation of a graph to their makers, in a process each, where they find this package.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import nncf
import numpy as np
import openvino as ov
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Normalize, Pooling, Transformer
from torch import nn

from stages.modeling.encoder import Encoder

_POOLING_NAMES = {"last": "lasttoken", "mean": "mean", "cls": "cls"}


def save_sentence_transformer(encoder: Encoder, prompts: Mapping[str, str], folder: Path) -> None:
    """Write a plain encoder as a Sentence Transformers folder: transformer, pooling, normalisation, prompts.

    Documents are the default prompt: whoever forgets to name one embeds documents, the larger side.
    """
    folder.mkdir(parents=True, exist_ok=True)
    encoder.save(folder)
    transformer = Transformer(str(folder), max_seq_length=encoder.settings.max_tokens)
    pooling = Pooling(encoder.dimensions, pooling_mode=_POOLING_NAMES[encoder.settings.pooling])
    model = SentenceTransformer(
        modules=[transformer, pooling, Normalize()], prompts=dict(prompts), default_prompt_name="document", device="cpu"
    )
    model.save_pretrained(str(folder), create_model_card=False, safe_serialization=True)


class _Graph(nn.Module):
    """An encoder as a graph of tensors: pooling and normalisation inside."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """[B, L] ids and mask -> unit embeddings [B, D]."""
        return self.encoder(input_ids=input_ids, attention_mask=attention_mask)


def save_openvino_int8(encoder: Encoder, folder: Path) -> None:
    """Write model.xml and model.bin: input_ids and attention_mask [B, L] -> unit embeddings [B, D], int8 weights.

    Weights alone are quantised, per channel; activations stay float, so the vectors hardly move.
    """
    folder.mkdir(parents=True, exist_ok=True)
    nncf.set_log_level(logging.WARNING)
    # Two lengths, so that the graph keeps its attention mask.
    example = encoder.pad(
        encoder.tokenize(["a", "a longer text of several words"], next(iter(encoder.settings.prompts)))
    )
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # shapes that are constant here are constant in use
        model = ov.convert_model(_Graph(encoder.eval()), example_input=example)
    for port, name in zip(model.inputs, ("input_ids", "attention_mask"), strict=True):
        port.get_tensor().set_names({name})
    model.outputs[0].get_tensor().set_names({"embeddings"})
    model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)
    ov.save_model(model, folder / "model.xml", compress_to_fp16=False)


class OpenVINOEncoder:
    """Runs a saved graph on tokens of the encoder it came from."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._model = ov.Core().compile_model(folder / "model.xml", "CPU", {"INFERENCE_NUM_THREADS": threads})

    def embed(self, batch: Mapping[str, torch.Tensor]) -> np.ndarray:
        """`input_ids` and `attention_mask` [B, L] -> unit embeddings [B, D]."""
        return np.asarray(self._model({name: tensor.numpy() for name, tensor in batch.items()})["embeddings"])


def embedding_limits(embeddings: np.ndarray, dims: Sequence[int], share: float = 0.999) -> dict[str, float]:
    """The magnitude that `share` of the coordinates stay under, for each prefix of unit length: int8 range is +- it.

    One symmetric range for all dimensions keeps dot products in order; a range per dimension does not (recall@10 0.97
    against 0.79 on the same vectors).
    """
    limits = {}
    for dim in dims:
        cut = embeddings[:, :dim] / np.linalg.norm(embeddings[:, :dim], axis=1, keepdims=True)
        limits[str(dim)] = float(np.quantile(np.abs(cut), share))
    return limits


def write_json(path: Path, value: object) -> None:
    """Write a value as JSON, sorted and indented."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
