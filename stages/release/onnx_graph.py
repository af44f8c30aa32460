"""ONNX graphs: exported once, filled with each task's weights, in float32 or int8.

Shapes: B batch, L tokens, V vocabulary, D embedding dimension.
"""

import hashlib
import logging
import warnings
from pathlib import Path

# ruff: noqa: E402
# onnxruntime's quantizer sets the root logger to INFO on import, unless the root logger has a handler.
_HANDLER = logging.NullHandler()
logging.getLogger().addHandler(_HANDLER)

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from torch import Tensor, nn

logging.getLogger().removeHandler(_HANDLER)

from stages.modeling.encoder import Encoder

OPSET = 20
# A protobuf message ends at 2 GiB; larger weights go to a file beside model.onnx.
INLINE_BYTES = 1 << 30
# Weights that share a scale: 32 is the smallest block of onnxruntime's operator, so the closest to the float weights.
BLOCK = 32
# Smaller tables (token types, norms) stay in float: quantising them saves nothing.
SMALL_TABLE_ROWS = 256


class EmbeddingGraph(nn.Module):
    """Tokens to unit vectors; the graph contains positions, pooling and normalisation."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder.eval()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed ids and mask [B, L], padded on either side, as unit vectors [B, D]."""
        return self.encoder(input_ids=input_ids, attention_mask=attention_mask)


def export_onnx(encoder: Encoder) -> onnx.ModelProto:
    """Export input_ids and attention_mask [B, L] -> embeddings [B, D], with B and L free."""
    side = next(iter(encoder.settings.prompts))
    # Two texts of two lengths: a trace of equal lengths drops the attention mask.
    example = encoder.pad(encoder.tokenize(["a", "a longer text of several words"], side))
    free = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            EmbeddingGraph(encoder),
            kwargs=example,
            input_names=["input_ids", "attention_mask"],
            output_names=["embeddings"],
            dynamic_shapes={"input_ids": free, "attention_mask": free},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return _without_notes(program.model_proto)


def _without_notes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove the exporter's notes: lines and folders of this machine's code, which differ with each export."""
    graph = model.graph
    for part in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer, graph, model):
        del part.metadata_props[:]
        part.ClearField("doc_string")
    return model


class OnnxGraph:
    """The exported graph of an encoder, to be filled with the weights of other encoders of the same architecture.

    An export takes ten seconds of tracing and folding; the models of all tasks share one.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._model = export_onnx(encoder)
        # Folding renames and transposes weights, so the graph's initializers are matched by their values.
        names: dict[tuple[tuple[int, ...], bytes], tuple[str, bool]] = {}
        for name, weight in _weights(encoder).items():
            if weight.ndim == 2:
                names.setdefault(_array_key(weight.T), (name, True))
            names[_array_key(weight)] = (name, False)
        arrays = (
            (initializer.name, numpy_helper.to_array(initializer)) for initializer in self._model.graph.initializer
        )
        found = ((initializer, names.get(_array_key(array))) for initializer, array in arrays)
        self._weights = {initializer: weight for initializer, weight in found if weight is not None}

    def with_weights(self, encoder: Encoder) -> onnx.ModelProto:
        """Copy the graph with an encoder's weights; the parity gate finds a weight that was not replaced."""
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


def _array_key(array: np.ndarray) -> tuple[tuple[int, ...], bytes]:
    """A key that is equal for arrays of equal shape and values."""
    return array.shape, hashlib.sha256(np.ascontiguousarray(array).tobytes()).digest()


def save_onnx(model: onnx.ModelProto, folder: Path) -> None:
    """Write model.onnx, and model.onnx.data beside it where the weights are too large for one message."""
    folder.mkdir(parents=True, exist_ok=True)
    # The weights are summed, since protobuf cannot even measure a message above 2 GiB.
    beside = sum(len(weight.raw_data) for weight in model.graph.initializer) > INLINE_BYTES
    onnx.save_model(model, folder / "model.onnx", save_as_external_data=beside, location="model.onnx.data")


def int8_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy a graph with int8 weights: linear maps in blocks with a scale each, the token table with a scale per row.

    Int8 arithmetic with a scale per tensor or channel moves vectors to cosine 0.91 to 0.98; blocks do not.
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
    """Replace each large lookup table [V, D] by its rows in int8 and a scale per row."""
    initializers = {one.name: one for one in graph.initializer}
    nodes = []
    for node in graph.node:
        table = initializers.get(node.input[0]) if node.op_type == "Gather" else None
        if table is not None and len(table.dims) == 2 and table.dims[0] >= SMALL_TABLE_ROWS:
            nodes += _int8_lookup(graph, node, numpy_helper.to_array(table))
        else:
            nodes.append(node)
    used = {name for node in nodes for name in node.input}
    remaining = [initializer for initializer in graph.initializer if initializer.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(remaining)


def _int8_lookup(graph: onnx.GraphProto, gather: onnx.NodeProto, table: np.ndarray) -> list[onnx.NodeProto]:
    """Nodes that look up int8 rows and multiply them by their scales; adds rows and scales to the graph."""
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
