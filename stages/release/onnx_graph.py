"""ONNX graphs: exported once, filled with each task's weights, and with those in int8.

Shapes: B batch, L tokens, V vocabulary, D embedding dimension.
"""

import hashlib
import logging
import warnings
from pathlib import Path

# ruff: noqa: E402
# onnxruntime's quantizer sets the root logger to INFO when it is imported, unless somebody has set it up before.
_SET_UP = logging.NullHandler()
logging.getLogger().addHandler(_SET_UP)

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

logging.getLogger().removeHandler(_SET_UP)

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
    return _without_origins(program.model_proto)


def _without_origins(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph without the exporter's notes: lines and folders of this machine's code, which differ each time."""
    graph = model.graph
    for part in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer, graph, model):
        del part.metadata_props[:]
        part.ClearField("doc_string")
    return model


class OnnxGraph:
    """The graph of an encoder, to be filled with the weights of others that differ in their weights alone.

    An export takes ten seconds of tracing and folding, and adapters share all of it.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._model = export_onnx(encoder)
        # Folding renames and transposes weights: they are found again by their values.
        names: dict[tuple[tuple[int, ...], bytes], tuple[str, bool]] = {}
        for name, weight in _weights(encoder).items():
            if weight.ndim == 2:
                names.setdefault(_identity(weight.T), (name, True))
            names[_identity(weight)] = (name, False)
        arrays = ((one.name, numpy_helper.to_array(one)) for one in self._model.graph.initializer)
        found = ((initializer, names.get(_identity(array))) for initializer, array in arrays)
        self._weights = {initializer: weight for initializer, weight in found if weight is not None}

    def filled(self, encoder: Encoder) -> onnx.ModelProto:
        """The graph with an encoder's weights; parity says whether every one of them found its place."""
        model, weights = onnx.ModelProto(), _weights(encoder)
        model.CopyFrom(self._model)
        for initializer in model.graph.initializer:
            if initializer.name in self._weights:
                name, transposed = self._weights[initializer.name]
                array = weights[name].T if transposed else weights[name]
                initializer.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), initializer.name))
        return model


def _weights(encoder: Encoder) -> dict[str, np.ndarray]:
    return {name: parameter.detach().numpy() for name, parameter in encoder.backbone.named_parameters()}


def _identity(array: np.ndarray) -> tuple[tuple[int, ...], bytes]:
    """Equal for arrays of equal shape and values."""
    return array.shape, hashlib.sha256(np.ascontiguousarray(array).tobytes()).digest()


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
