"""Every format of a release, task after task."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stages.modeling.encoder import Encoder
from stages.release.graph import save_beside
from stages.release.merged import save_sentence_transformer

if TYPE_CHECKING:
    from stages.release.onnx_graph import OnnxGraph


class Writer:
    """Writes merged/<task>, and <format>/<task> for each of the named formats."""

    def __init__(self, release: Path, names: Sequence[str]) -> None:
        self._release, self._names = release, names
        self._graph: OnnxGraph | None = None

    def write(self, encoder: Encoder, prompts: Mapping[str, str], task: str) -> None:
        """Write a task.

        Args:
            encoder: a plain one, its adapter merged; of one task as of the other but for its weights.
            prompts: the task's, by side.
        """
        save_sentence_transformer(encoder, prompts, self._release / "merged" / task)
        for name in self._names:
            save_beside(encoder, prompts, self._release / name / task)
        if self._names:
            self._write_graphs(encoder, task)

    def _write_graphs(self, encoder: Encoder, task: str) -> None:
        """All are made of the ONNX graph, which is written where it is wanted, or put aside."""
        from stages.release.onnx_graph import OnnxGraph, int8_weights, save_onnx

        self._graph = self._graph or OnnxGraph(encoder)
        graph = self._graph.filled(encoder)
        with tempfile.TemporaryDirectory(prefix="stillhouse-graph-") as aside:
            folder = self._release / "onnx" / task if "onnx" in self._names else Path(aside)
            save_onnx(graph, folder)
            if "onnx-int8" in self._names:
                save_onnx(int8_weights(graph), self._release / "onnx-int8" / task)
            if "openvino-int8" in self._names:
                from stages.release.openvino_int8 import save_openvino_int8

                save_openvino_int8(folder / "model.onnx", self._release / "openvino-int8" / task)
