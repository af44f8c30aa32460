"""OpenVINO graphs with int8 weights.

Shapes: B batch, L tokens, D embedding dimension.
"""

import logging
import sys
import warnings
from pathlib import Path

# ruff: noqa: E402
# OpenVINO and NNCF report every operation of a graph to their makers, in a process each, where they find this package.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import nncf
import openvino as ov
import torch

from stages.modeling.encoder import Encoder
from stages.release.graph import INPUTS, OUTPUT, Graph, example_batch


def save_openvino_int8(encoder: Encoder, folder: Path) -> None:
    """Write model.xml and model.bin: input_ids and attention_mask [B, L] -> embeddings [B, D], int8 weights.

    Weights alone are quantised, per channel; activations stay float, so the vectors hardly move.
    """
    folder.mkdir(parents=True, exist_ok=True)
    nncf.set_log_level(logging.WARNING)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # shapes that are constant here are constant in use
        model = ov.convert_model(Graph(encoder), example_input=example_batch(encoder))
    for port, name in zip(model.inputs, INPUTS, strict=True):
        port.get_tensor().set_names({name})
    model.outputs[0].get_tensor().set_names({OUTPUT})
    model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)
    ov.save_model(model, folder / "model.xml", compress_to_fp16=False)
