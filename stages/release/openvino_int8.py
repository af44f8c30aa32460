"""OpenVINO graphs with int8 weights, made of ONNX graphs."""

import logging
import sys
from pathlib import Path

# ruff: noqa: E402
# OpenVINO and NNCF report every operation of a graph to their makers, in a process each, where they find this package.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import nncf
import openvino as ov


def save_openvino_int8(graph: Path, folder: Path) -> None:
    """Write model.xml and model.bin of a model.onnx: the same inputs and output, int8 weights.

    Weights alone are quantised, per channel; activations stay float, so the vectors hardly move. The model says so to
    the runtime too, which by itself quantises activations on CPUs that multiply int8 faster.
    """
    folder.mkdir(parents=True, exist_ok=True)
    nncf.set_log_level(logging.WARNING)
    model = nncf.compress_weights(ov.convert_model(graph), mode=nncf.CompressWeightsMode.INT8_ASYM)
    model.set_rt_info("0", ["runtime_options", "DYNAMIC_QUANTIZATION_GROUP_SIZE"])
    ov.save_model(model, folder / "model.xml", compress_to_fp16=False)
