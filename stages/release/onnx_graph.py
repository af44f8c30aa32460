"""ONNX graphs: as they are, and with int8 weights where that keeps the vectors.

Shapes: B batch, L tokens, V vocabulary, D embedding dimension.
"""

import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

from stages.modeling.encoder import Encoder
from stages.release.graph import INPUTS, OUTPUT, Graph, example_batch

OPSET = 20
# A protobuf message ends at 2 GiB; larger weights go to a file beside.
INLINE_BYTES = 1 << 30
# Weights that share a scale: 32 is the smallest block of onnxruntime's operator, so the nearest to the float weights.
BLOCK = 32
# Of tables smaller than this nothing is saved: token types, norms.
SMALL_TABLE_ROWS = 256


def export_onnx(encoder: Encoder) -> onnx.ModelProto:
    """input_ids and attention_mask [B, L] -> embeddings [B, D], B and L free."""
    free = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    exporter = logging.getLogger("torch.onnx")
    before = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                Graph(encoder),
                kwargs=example_batch(encoder),
                input_names=list(INPUTS),
                output_names=[OUTPUT],
                dynamic_shapes=dict.fromkeys(INPUTS, free),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    finally:
        exporter.setLevel(before)
    assert program is not None
    return program.model_proto


def save_onnx(model: onnx.ModelProto, folder: Path) -> None:
    """Write model.onnx, and model.onnx.data beside it where the weights do not fit in."""
    folder.mkdir(parents=True, exist_ok=True)
    beside = model.ByteSize() > INLINE_BYTES
    onnx.save_model(model, folder / "model.onnx", save_as_external_data=beside, location="model.onnx.data")


def int8_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with the weights of its linear maps in int8, in blocks with a scale each, and its token table by rows.

    Whole int8 arithmetic with a scale per tensor or channel moves vectors to cosine 0.91 to 0.98; blocks do not.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    quantizer = MatMulNBitsQuantizer(copied, bits=8, block_size=BLOCK, is_symmetric=True, accuracy_level=4)
    logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer").setLevel(logging.WARNING)
    quantizer.process()
    quantized: onnx.ModelProto = quantizer.model.model
    _quantize_tables(quantized.graph)
    return quantized


def _quantize_tables(graph: onnx.GraphProto) -> None:
    """Replace each large table [V, D] that is looked up by its int8 rows and a scale a row."""
    tables = {one.name: one for one in graph.initializer if len(one.dims) == 2 and one.dims[0] >= SMALL_TABLE_ROWS}
    nodes = []
    for node in graph.node:
        if node.op_type != "Gather" or node.input[0] not in tables:
            nodes.append(node)
            continue
        nodes += _lookup(graph, node, numpy_helper.to_array(tables[node.input[0]]))
    used = {name for node in nodes for name in node.input}
    kept = [one for one in graph.initializer if one.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)


def _lookup(graph: onnx.GraphProto, gather: onnx.NodeProto, table: np.ndarray) -> list[onnx.NodeProto]:
    """Nodes that look rows up in int8 and give them their scale."""
    name, output = gather.input[0], gather.output[0]
    scale = np.abs(table).max(axis=1, keepdims=True).astype(np.float32) / 127
    rows = np.round(table / np.where(scale == 0, 1, scale)).astype(np.int8)
    graph.initializer.append(numpy_helper.from_array(rows, f"{name}_int8"))
    graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
    return [
        helper.make_node("Gather", [f"{name}_int8", gather.input[1]], [f"{output}_int8"], axis=0),
        helper.make_node("Gather", [f"{name}_scale", gather.input[1]], [f"{output}_scale"], axis=0),
        helper.make_node("Cast", [f"{output}_int8"], [f"{output}_float"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", [f"{output}_float", f"{output}_scale"], [output]),
    ]
