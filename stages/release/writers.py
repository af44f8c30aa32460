"""Every format of a task, written one after another from the same merged encoder."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from stages.modeling.encoder import Encoder
from stages.release.graph import save_beside
from stages.release.merged import save_sentence_transformer


def save_formats(encoder: Encoder, prompts: Mapping[str, str], release: Path, task: str, names: Sequence[str]) -> None:
    """Write merged/<task>, and <format>/<task> for each of the named formats.

    Args:
        encoder: a plain one, its adapter merged.
        prompts: the task's, by side.
    """
    save_sentence_transformer(encoder, prompts, release / "merged" / task)
    for name in names:
        save_beside(encoder, prompts, release / name / task)
    if {"onnx", "onnx-int8"} & set(names):
        from stages.release.onnx_graph import export_onnx, int8_weights, save_onnx

        graph = export_onnx(encoder)
        if "onnx" in names:
            save_onnx(graph, release / "onnx" / task)
        if "onnx-int8" in names:
            save_onnx(int8_weights(graph), release / "onnx-int8" / task)
    if "openvino-int8" in names:
        from stages.release.openvino_int8 import save_openvino_int8

        save_openvino_int8(encoder, release / "openvino-int8" / task)
