"""A release as its consumers load it: one format, every task, on given texts. Runs where nothing else is installed.

Run as `consumer.py REQUEST ANSWERS`. The request is a JSON file with `format`, `release`, `tasks`, `threads`, `cases`
(side and text of each), `embedded` (numbers of the cases to embed) and `batch` (numbers of those to embed once more,
padded together). For each task, ANSWERS receives <task>.json (token ids, settings) and <task>.npz (embeddings). The
script imports only the packages of the format's consumer: sharing this project's code would prove nothing.

Shapes: B texts, L tokens, D embedding dimension.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Cases = Sequence[tuple[str, str]]  # side and text of each


class GraphReader:
    """Loads ONNX and OpenVINO graphs: tokens in, unit vectors out."""

    def __init__(self, release: Path, form: str, task: str, threads: int) -> None:
        from tokenizers import Tokenizer

        folder = release / form / task
        embedder = json.loads((folder / "embedder.json").read_text(encoding="utf-8"))
        self.prompts = embedder["prompts"]
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.padding = dict(self.tokenizer.padding or {})
        self.settings = {name: embedder[name] for name in ("pooling", "prompts", "max_tokens")}
        self.settings["padding_side"] = self.padding["direction"]
        self.padding_sides = ("right", "left")
        self.run = openvino_runner(folder, threads) if form.startswith("openvino") else onnx_runner(folder, threads)

    def tokens(self, cases: Cases) -> list[list[int]]:
        """Token ids of each text, without padding."""
        self.tokenizer.no_padding()
        return [list(encoding.ids) for encoding in self.tokenizer.encode_batch(self._prompted(cases))]

    def embed(self, cases: Cases, padding_side: str | None) -> np.ndarray:
        """Embed one batch, [B, D]; None pads on the tokenizer's own side."""
        self.tokenizer.enable_padding(**self.padding | ({"direction": padding_side} if padding_side else {}))
        encodings = self.tokenizer.encode_batch(self._prompted(cases))
        return self.run(
            {
                "input_ids": np.array([encoding.ids for encoding in encodings], dtype=np.int64),
                "attention_mask": np.array([encoding.attention_mask for encoding in encodings], dtype=np.int64),
            }
        )

    def _prompted(self, cases: Cases) -> list[str]:
        return [self.prompts[side] + text for side, text in cases]


def onnx_runner(folder: Path, threads: int) -> Any:
    """Load model.onnx as a function from `input_ids` and `attention_mask` [B, L] to embeddings [B, D]."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(["embeddings"], batch)[0]


def openvino_runner(folder: Path, threads: int) -> Any:
    """Load model.xml as such a function."""
    import openvino

    # Without the hint, OpenVINO computes in bfloat16 on CPUs that can, and its vectors differ from one CPU to the next.
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(folder / "model.xml", "CPU", settings)
    return lambda batch: np.array(model(batch)["embeddings"])


class MergedReader:
    """Loads Sentence Transformers folders."""

    def __init__(self, release: Path, form: str, task: str, threads: int) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(threads)
        self.model = SentenceTransformer(str(release / form / task), device="cpu", local_files_only=True)
        self.settings = {
            "pooling": {"lasttoken": "last", "mean": "mean", "cls": "cls"}[str(self.model[1].pooling_mode)],
            "prompts": {side: self.model.prompts[side] for side in ("document", "query")},
            "max_tokens": self.model.max_seq_length,
            "padding_side": self.model.tokenizer.padding_side,
        }
        self.padding_sides = (self.model.tokenizer.padding_side,)

    def tokens(self, cases: Cases) -> list[list[int]]:
        """Token ids of each text, without padding."""
        return [self.model.tokenize([text])["input_ids"][0].tolist() for text in self._prompted(cases)]

    def embed(self, cases: Cases, padding_side: str | None) -> np.ndarray:
        """Embed one batch, [B, D]."""
        return np.asarray(self.model.encode(self._prompted(cases), prompt="", batch_size=len(cases)))

    def _prompted(self, cases: Cases) -> list[str]:
        return [str(self.model.prompts[side]) + text for side, text in cases]


class AdapterReader:
    """Loads the base with an adapter by its name (PEFT); the caller pools and normalises."""

    def __init__(self, release: Path, form: str, task: str, threads: int) -> None:
        import torch
        from peft import PeftModel
        from transformers import AutoModel, AutoTokenizer

        torch.set_num_threads(threads)
        base = release / "base"
        encoder = json.loads((base / "encoder.json").read_text(encoding="utf-8"))
        if task != "retrieval":  # every other task reads both sides as documents
            encoder["prompts"]["query"] = encoder["prompts"]["document"]
        self.tokenizer = AutoTokenizer.from_pretrained(base)
        self.model = PeftModel.from_pretrained(AutoModel.from_pretrained(base), release / form / task, task).eval()
        assert self.model.active_adapter == task, f"adapter {task} came back as {self.model.active_adapter}"
        self.settings = {name: encoder[name] for name in ("pooling", "prompts", "max_tokens")}
        self.settings["padding_side"] = self.tokenizer.padding_side
        self.padding_sides = (self.tokenizer.padding_side,)

    def tokens(self, cases: Cases) -> list[list[int]]:
        """Token ids of each text, without padding."""
        return self._tokenize(cases, padding=False)["input_ids"]

    def embed(self, cases: Cases, padding_side: str | None) -> np.ndarray:
        """Embed one batch, [B, D]."""
        import torch

        batch = self._tokenize(cases, padding=True, return_tensors="pt")
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            states = self.model(**inputs).last_hidden_state
        vectors = _pool(states.numpy(), batch["attention_mask"].numpy(), self.settings["pooling"])
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def _tokenize(self, cases: Cases, **options: Any) -> Any:
        texts = [self.settings["prompts"][side] + text for side, text in cases]
        return self.tokenizer(texts, truncation=True, max_length=self.settings["max_tokens"], **options)


def _pool(states: np.ndarray, mask: np.ndarray, pooling: str) -> np.ndarray:
    """Pool states [B, L, D] under mask [B, L] to [B, D]."""
    if pooling == "mean":
        return np.asarray((states * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True))
    first = mask.argmax(axis=1)
    position = first if pooling == "cls" else first + mask.sum(axis=1) - 1
    return np.asarray(states[np.arange(len(states)), position])


READERS = {"adapters": AdapterReader, "merged": MergedReader}


def main() -> None:
    """Read the request and write an answer for each task."""
    # A release is read from its folder alone, without asking a hub.
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    request, answers = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2])
    cases = [(side, text) for side, text in request["cases"]]
    reader_class: Any = READERS.get(request["format"], GraphReader)
    for task in request["tasks"]:
        reader = reader_class(Path(request["release"]), request["format"], task, request["threads"])
        vectors = {"alone": np.concatenate([reader.embed([cases[row]], None) for row in request["embedded"]])}
        batch = [cases[row] for row in request["batch"]]
        vectors |= {side: reader.embed(batch, side) for side in reader.padding_sides}
        answer = {"token_ids": reader.tokens(cases), "settings": reader.settings}
        (answers / f"{task}.json").write_text(json.dumps(answer), encoding="utf-8")
        np.savez(answers / f"{task}.npz", allow_pickle=False, **vectors)


if __name__ == "__main__":
    main()
