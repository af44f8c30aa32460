"""Files of ONNX graphs: weights beside the graph where a protobuf message cannot hold them."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession

from stages.release import onnx_graph
from stages.release.onnx_graph import save_onnx


def adding(weights: list[onnx.TensorProto]) -> onnx.ModelProto:
    """A graph that adds all its weights of shape [n] to its input."""
    names = ["x", *(weight.name for weight in weights)]
    shape = weights[0].dims
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Sum", names, ["y"])], "adding", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize("beside", [False, True])
def test_weights_stand_in_the_graph_or_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: bool) -> None:
    weights = [numpy_helper.from_array(np.arange(500, dtype=np.float32) + at, f"w{at}") for at in range(2)]
    monkeypatch.setattr(onnx_graph, "INLINE_BYTES", 3_999 if beside else 4_000)
    save_onnx(adding(weights), tmp_path)
    assert (tmp_path / "model.onnx.data").exists() == beside
    (found,) = InferenceSession(tmp_path / "model.onnx").run(None, {"x": np.zeros(500, dtype=np.float32)})
    np.testing.assert_array_equal(found, 2 * np.arange(500) + 1)


@pytest.mark.slow  # it writes 2.3 GB
def test_weights_above_two_gigabytes_are_written(tmp_path: Path) -> None:
    weights = []
    for at in range(3):
        weight = onnx.TensorProto(name=f"w{at}", data_type=TensorProto.FLOAT, dims=[190_000_000])
        weight.raw_data = bytes(4 * 190_000_000)
        weights.append(weight)
    model = adding(weights)
    del weights, weight
    with pytest.raises(Exception, match="Failed to serialize"):
        model.ByteSize()  # which is why it is not asked
    save_onnx(model, tmp_path)
    assert (tmp_path / "model.onnx").stat().st_size < 10_000
    assert (tmp_path / "model.onnx.data").stat().st_size == 3 * 4 * 190_000_000
    (tmp_path / "model.onnx.data").unlink()  # pytest keeps the folders of three runs
