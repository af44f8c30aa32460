"""A release as its consumers read it: one format, every task, on given texts. Runs where nothing else is installed.

`consumer.py REQUEST ANSWERS`: the request is JSON with `format`, `release`, `tasks`, `threads`, `cases` ([side, text]),
`embedded` (which cases) and `batch` (which of those once more, padded together). For each task ANSWERS gets
<task>.json (token ids, settings) and <task>.npz (vectors). Imports what the format's consumer has, and nothing of this
project: what shares its code proves nothing.

Shapes: B texts, L tokens, D embedding dimension.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Texts = Sequence[tuple[str, str]]  # side and text of each


class GraphReader:
    """ONNX and OpenVINO: tokens in, unit vectors out."""

    def __init__(self, release: Path, name: str, task: str, threads: int) -> None:
        from tokenizers import Tokenizer

        folder = release / name / task
        self.settings = json.loads((folder / "embedder.json").read_text(encoding="utf-8"))
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.padding = dict(self.tokenizer.padding or {})
        self.sides = ("right", "left")
        self.run = openvino_runner(folder, threads) if name.startswith("openvino") else onnx_runner(folder, threads)

    def about(self) -> dict[str, Any]:
        """What the format says of itself."""
        names = ("pooling", "prompts", "max_tokens")
        return {name: self.settings[name] for name in names} | {"padding_side": self.padding["direction"]}

    def tokens(self, cases: Texts) -> list[list[int]]:
        """Token ids of each text, without padding."""
        self.tokenizer.no_padding()
        return [list(one.ids) for one in self.tokenizer.encode_batch(self._prompted(cases))]

    def embed(self, cases: Texts, side: str | None) -> np.ndarray:
        """[B, D] of one batch, padded on a side."""
        self.tokenizer.enable_padding(**self.padding | ({"direction": side} if side else {}))
        encoded = self.tokenizer.encode_batch(self._prompted(cases))
        return self.run(
            {
                "input_ids": np.array([one.ids for one in encoded], dtype=np.int64),
                "attention_mask": np.array([one.attention_mask for one in encoded], dtype=np.int64),
            }
        )

    def _prompted(self, cases: Texts) -> list[str]:
        return [self.settings["prompts"][side] + text for side, text in cases]


def onnx_runner(folder: Path, threads: int) -> Any:
    """A function from `input_ids` and `attention_mask` [B, L] to [B, D], by onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(["embeddings"], batch)[0]


def openvino_runner(folder: Path, threads: int) -> Any:
    """The same by OpenVINO."""
    import openvino

    # Its hint would compute in bfloat16 where a CPU can, and be nobody's reference.
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(folder / "model.xml", "CPU", settings)
    return lambda batch: np.array(model(batch)["embeddings"])


class MergedReader:
    """Sentence Transformers folders."""

    def __init__(self, release: Path, name: str, task: str, threads: int) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(threads)
        self.model = SentenceTransformer(str(release / name / task), device="cpu", local_files_only=True)
        self.sides = (self.model.tokenizer.padding_side,)

    def about(self) -> dict[str, Any]:
        """What the folder says of itself."""
        pooling = {"lasttoken": "last", "mean": "mean", "cls": "cls"}[str(self.model[1].pooling_mode)]
        prompts = {side: self.model.prompts[side] for side in ("document", "query")}
        about = {"pooling": pooling, "prompts": prompts, "max_tokens": self.model.max_seq_length}
        return about | {"padding_side": self.model.tokenizer.padding_side}

    def tokens(self, cases: Texts) -> list[list[int]]:
        """Token ids of each text, without padding."""
        return [self.model.tokenize([text])["input_ids"][0].tolist() for text in self._prompted(cases)]

    def embed(self, cases: Texts, side: str | None) -> np.ndarray:
        """[B, D] of one batch."""
        prompted = self._prompted(cases)
        return np.asarray(self.model.encode(prompted, prompt="", batch_size=len(prompted)))

    def _prompted(self, cases: Texts) -> list[str]:
        return [str(self.model.prompts[side]) + text for side, text in cases]


class AdapterReader:
    """The base with an adapter by its name (PEFT); pooling and normalisation are the caller's."""

    def __init__(self, release: Path, name: str, task: str, threads: int) -> None:
        import torch
        from peft import PeftModel
        from transformers import AutoModel, AutoTokenizer

        torch.set_num_threads(threads)
        base = release / "base"
        self.settings = json.loads((base / "encoder.json").read_text(encoding="utf-8"))
        if task != "retrieval":  # every other task reads both sides as documents
            self.settings["prompts"]["query"] = self.settings["prompts"]["document"]
        self.tokenizer = AutoTokenizer.from_pretrained(base)
        self.model = PeftModel.from_pretrained(AutoModel.from_pretrained(base), release / name / task, task).eval()
        assert self.model.active_adapter == task, f"adapter {task} came back as {self.model.active_adapter}"
        self.sides = (self.tokenizer.padding_side,)

    def about(self) -> dict[str, Any]:
        """What base/encoder.json and the tokenizer say."""
        names = ("pooling", "prompts", "max_tokens")
        return {name: self.settings[name] for name in names} | {"padding_side": self.tokenizer.padding_side}

    def tokens(self, cases: Texts) -> list[list[int]]:
        """Token ids of each text, without padding."""
        return self._tokenize(cases, padding=False)["input_ids"]

    def embed(self, cases: Texts, side: str | None) -> np.ndarray:
        """[B, D] of one batch."""
        import torch

        batch = self._tokenize(cases, padding=True, return_tensors="pt")
        arguments = {name: batch[name] for name in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            states = self.model(**arguments).last_hidden_state
        vectors = _pooled(states.numpy(), batch["attention_mask"].numpy(), self.settings["pooling"])
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def _tokenize(self, cases: Texts, **options: Any) -> Any:
        texts = [self.settings["prompts"][side] + text for side, text in cases]
        return self.tokenizer(texts, truncation=True, max_length=self.settings["max_tokens"], **options)


def _pooled(states: np.ndarray, mask: np.ndarray, pooling: str) -> np.ndarray:
    """States [B, L, D] under mask [B, L] to [B, D]."""
    if pooling == "mean":
        return np.asarray((states * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True))
    first = mask.argmax(axis=1)
    position = first if pooling == "cls" else first + mask.sum(axis=1) - 1
    return np.asarray(states[np.arange(len(states)), position])


READERS = {"adapters": AdapterReader, "merged": MergedReader}


def main() -> None:
    """Read the request, write an answer a task."""
    # A consumer of a release folder asks nobody for anything.
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    request, answers = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2])
    cases = [(side, text) for side, text in request["cases"]]
    for task in request["tasks"]:
        reader: Any = READERS.get(request["format"], GraphReader)(
            Path(request["release"]), request["format"], task, request["threads"]
        )
        vectors = {"alone": np.concatenate([reader.embed([cases[row]], None) for row in request["embedded"]])}
        batch = [cases[row] for row in request["batch"]]
        vectors |= {side: reader.embed(batch, side) for side in reader.sides}
        answer = {"token_ids": reader.tokens(cases), "settings": reader.about()}
        (answers / f"{task}.json").write_text(json.dumps(answer), encoding="utf-8")
        np.savez(answers / f"{task}.npz", allow_pickle=False, **vectors)


if __name__ == "__main__":
    main()
