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


class Reader:
    """A format's model of one task. The first four attributes are compared with those of the trained model."""

    pooling: str
    prompts: dict[str, str]  # by side
    max_tokens: int | None
    padding_side: str
    batch_sides: tuple[str, ...]  # sides on which a batch may be padded

    def prompted(self, cases: Cases) -> list[str]:
        """Texts behind the prompts of their sides."""
        return [self.prompts[side] + text for side, text in cases]


class GraphReader(Reader):
    """Loads ONNX and OpenVINO graphs: tokens in, unit vectors out."""

    batch_sides = ("right", "left")

    def __init__(self, release: Path, form: str, task: str, threads: int) -> None:
        from tokenizers import Tokenizer

        folder = release / form / task
        settings = json.loads((folder / "embedder.json").read_text(encoding="utf-8"))
        self.pooling, self.prompts, self.max_tokens = (settings[name] for name in ("pooling", "prompts", "max_tokens"))
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.padding = dict(self.tokenizer.padding or {})
        self.padding_side = self.padding["direction"]
        self.run = openvino_runner(folder, threads) if form.startswith("openvino") else onnx_runner(folder, threads)

    def tokens(self, cases: Cases) -> list[list[int]]:
        """Token ids of each text, without padding."""
        self.tokenizer.no_padding()
        return [list(encoding.ids) for encoding in self.tokenizer.encode_batch(self.prompted(cases))]

    def embed(self, cases: Cases, padding_side: str) -> np.ndarray:
        """Embed one batch, [B, D]."""
        self.tokenizer.enable_padding(**self.padding | {"direction": padding_side})
        encodings = self.tokenizer.encode_batch(self.prompted(cases))
        ids, mask = [encoding.ids for encoding in encodings], [encoding.attention_mask for encoding in encodings]
        return self.run({"input_ids": np.array(ids, np.int64), "attention_mask": np.array(mask, np.int64)})


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


class MergedReader(Reader):
    """Loads Sentence Transformers folders."""

    def __init__(self, release: Path, form: str, task: str, threads: int) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(threads)
        self.model = SentenceTransformer(str(release / form / task), device="cpu", local_files_only=True)
        self.pooling = {"lasttoken": "last", "mean": "mean", "cls": "cls"}[str(self.model[1].pooling_mode)]
        self.prompts = {side: str(self.model.prompts[side]) for side in ("document", "query")}
        self.max_tokens = self.model.max_seq_length
        self.padding_side = self.model.tokenizer.padding_side
        self.batch_sides = (self.padding_side,)

    def tokens(self, cases: Cases) -> list[list[int]]:
        """Token ids of each text, without padding."""
        return [self.model.tokenize([text])["input_ids"][0].tolist() for text in self.prompted(cases)]

    def embed(self, cases: Cases, padding_side: str) -> np.ndarray:
        """Embed one batch, [B, D]."""
        return np.asarray(self.model.encode(self.prompted(cases), prompt="", batch_size=len(cases)))


class AdapterReader(Reader):
    """Loads the base with an adapter by its name (PEFT); the caller pools and normalises."""

    def __init__(self, release: Path, form: str, task: str, threads: int) -> None:
        import torch
        from peft import PeftModel
        from transformers import AutoModel, AutoTokenizer

        torch.set_num_threads(threads)
        base = release / "base"
        settings = json.loads((base / "encoder.json").read_text(encoding="utf-8"))
        self.pooling, self.prompts, self.max_tokens = (settings[name] for name in ("pooling", "prompts", "max_tokens"))
        if task != "retrieval":  # every other task reads both sides as documents
            self.prompts["query"] = self.prompts["document"]
        self.tokenizer = AutoTokenizer.from_pretrained(base)
        self.padding_side = self.tokenizer.padding_side
        self.batch_sides = (self.padding_side,)
        self.model = PeftModel.from_pretrained(AutoModel.from_pretrained(base), release / form / task, task).eval()
        assert self.model.active_adapter == task, f"adapter {task} came back as {self.model.active_adapter}"

    def tokens(self, cases: Cases) -> list[list[int]]:
        """Token ids of each text, without padding."""
        return self._tokenize(cases, padding=False)["input_ids"]

    def embed(self, cases: Cases, padding_side: str) -> np.ndarray:
        """Embed one batch, [B, D]."""
        import torch

        batch = self._tokenize(cases, padding=True, return_tensors="pt")
        ids, mask = batch["input_ids"], batch["attention_mask"]
        with torch.inference_mode():
            states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        vectors = _pool(states.numpy(), mask.numpy(), self.pooling)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def _tokenize(self, cases: Cases, **options: Any) -> Any:
        return self.tokenizer(self.prompted(cases), truncation=True, max_length=self.max_tokens, **options)


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
        alone = [reader.embed([cases[row]], reader.padding_side) for row in request["embedded"]]
        batch = [cases[row] for row in request["batch"]]
        vectors = {side: reader.embed(batch, side) for side in reader.batch_sides} | {"alone": np.concatenate(alone)}
        settings = {name: getattr(reader, name) for name in ("pooling", "prompts", "max_tokens", "padding_side")}
        answer = {"token_ids": reader.tokens(cases), "settings": settings}
        (answers / f"{task}.json").write_text(json.dumps(answer), encoding="utf-8")
        np.savez(answers / f"{task}.npz", allow_pickle=False, **vectors)


if __name__ == "__main__":
    main()
