"""OpenVINO graphs with int8 weights, converted from ONNX graphs."""

import logging
import sys
from pathlib import Path

# ruff: noqa: E402
# OpenVINO and NNCF send usage reports, in a process for each operation of a graph, wherever they find this package.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import nncf
import openvino as ov


def save_openvino_int8(graph: Path, folder: Path) -> None:
    """Convert a model.onnx to model.xml and model.bin with int8 weights and the same inputs and output.

    Only weights are quantised, per channel; activations stay float, so that the vectors hardly move. The runtime
    option keeps OpenVINO from quantising activations, its default on CPUs with fast int8 multiplication.
    """
    folder.mkdir(parents=True, exist_ok=True)
    nncf.set_log_level(logging.WARNING)
    model = nncf.compress_weights(ov.convert_model(graph), mode=nncf.CompressWeightsMode.INT8_ASYM)
    model.set_rt_info("0", ["runtime_options", "DYNAMIC_QUANTIZATION_GROUP_SIZE"])
    ov.save_model(model, folder / "model.xml", compress_to_fp16=False)
