"""Writing every format of a release, task by task."""

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from stages.modeling.encoder import Encoder
from stages.release.checksums import write_json
from stages.release.merged import save_sentence_transformer
from stages.release.onnx_graph import OnnxGraph, int8_weights, save_onnx
from stages.release.openvino_int8 import save_openvino_int8


class Writer:
    """Writes merged/<task>, and <format>/<task> for each of the named formats.

    >>> writer = Writer(Path("data/quantized/mine"), ["onnx", "openvino-int8"])
    >>> writer.write(encoder, {"query": "Query: ", "document": "Document: "}, "retrieval")
    """

    def __init__(self, release: Path, formats: Sequence[str]) -> None:
        self._release, self._formats = release, formats
        self._graph: OnnxGraph | None = None

    def write(self, encoder: Encoder, prompts: Mapping[str, str], task: str) -> None:
        """Write the formats of a task.

        Args:
            encoder: the task's encoder, its adapter merged; encoders of several tasks may differ in their weights only.
            prompts: the task's prompts, by side.
        """
        save_sentence_transformer(encoder, prompts, self._release / "merged" / task)
        for name in self._formats:
            save_tokenizer_and_settings(encoder, prompts, self._release / name / task)
        if self._formats:
            self._write_graphs(encoder, task)

    def _write_graphs(self, encoder: Encoder, task: str) -> None:
        """Write the graphs. All are made from the ONNX graph, which is temporary where `onnx` is not asked for."""
        self._graph = self._graph or OnnxGraph(encoder)
        graph = self._graph.with_weights(encoder)
        with tempfile.TemporaryDirectory(prefix="stillhouse-graph-") as temporary:
            folder = self._release / "onnx" / task if "onnx" in self._formats else Path(temporary)
            save_onnx(graph, folder)
            if "onnx-int8" in self._formats:
                save_onnx(int8_weights(graph), self._release / "onnx-int8" / task)
            if "openvino-int8" in self._formats:
                save_openvino_int8(folder / "model.onnx", self._release / "openvino-int8" / task)


def save_tokenizer_and_settings(encoder: Encoder, prompts: Mapping[str, str], folder: Path) -> None:
    """Write tokenizer.json, which cuts, ends and pads texts, and embedder.json, which holds the prompts."""
    folder.mkdir(parents=True, exist_ok=True)
    # The encoder's own tokenizer must keep cutting and padding as each of its calls asks, so a copy is changed.
    tokenizer = encoder.tokenizer.backend_tokenizer.from_str(encoder.tokenizer.backend_tokenizer.to_str())
    tokenizer.enable_truncation(encoder.settings.max_tokens)
    padding = {"pad_id": encoder.tokenizer.pad_token_id, "pad_token": encoder.tokenizer.pad_token}
    tokenizer.enable_padding(direction=encoder.tokenizer.padding_side, **padding)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = asdict(encoder.settings) | {"prompts": dict(prompts), "dimensions": encoder.dimensions}
    settings |= {"padding_side": encoder.tokenizer.padding_side, "normalized": True}
    write_json(folder / "embedder.json", settings)


def copy_adapter(source: Path, target: Path, base: str) -> None:
    """Copy an adapter without its training curve; the release replaces a folder of this machine as its base.

    Modes are not copied: where DVC links its cache, an adapter's files are read-only.
    """
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("curve.csv"), copy_function=shutil.copyfile)
    config = json.loads((target / "adapter_config.json").read_text(encoding="utf-8"))
    text = json.dumps(config | {"base_model_name_or_path": base}, indent=2) + "\n"
    (target / "adapter_config.json").write_text(text, encoding="utf-8")
