"""Any model that Sentence Transformers loads as teacher: its own pooling, Dense layers and normalisation.

Instructions are the recipe's; where the model's pooling leaves its prompt out, that holds for them too.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from stages.corpus.locations import files_digest
from stages.modeling.truncation import means, parts_of, whole_lengths
from stages.teachers.fingerprint import identified, local_folder
from stages.teachers.vector_store import Identity, Reading

# What decides a model's vectors; weights in another format than safetensors are not read.
_SUFFIXES = {".json", ".txt", ".model", ".safetensors"}


@dataclass
class SentenceTransformerTeacher:
    """A folder or hub id in the Sentence Transformers format.

    Args:
        max_tokens: of a text that is read at once.
        window_tokens: of a text that is read in windows; None where none is.
        batch_tokens: of a batch whose texts are all as long as they may be.
    """

    path: str
    instructions: tuple[str, ...]
    max_tokens: int
    window_tokens: int | None
    precision: str
    threads: int
    batch_tokens: int

    @cached_property
    def identity(self) -> Identity:
        """Digest of every file that the model is made of, and the precision of its forward pass."""
        folder = local_folder(self.path)
        paths = sorted(path for path in folder.rglob("*") if path.suffix in _SUFFIXES and "openvino" not in path.parts)
        return identified(
            {"modules": files_digest(paths), "normalised": True, "precision": self.precision, "dtype": "float16"}
        )

    def embed(self, texts: Sequence[str], reading: Reading) -> np.ndarray:
        """Unit vectors [N, T] float32 of texts, longer ones in windows."""
        model, tokens = self._model, min(reading.max_tokens, reading.window_tokens)
        around = whole_lengths(model.tokenizer, [reading.instruction])[0] if tokens < reading.max_tokens else 0
        parts, owners = parts_of(model.tokenizer, texts, reading.max_tokens, tokens, around)
        if self._counts:
            model.max_seq_length = tokens
        device = model.device.type
        dtype = getattr(torch, self.precision)
        with torch.autocast(device, dtype=dtype, enabled=dtype != torch.float32):
            vectors = model.encode(
                parts,
                prompt=reading.instruction,
                batch_size=max(1, self.batch_tokens // tokens),
                normalize_embeddings=True,
                show_progress_bar=False,
            )
        vectors = np.asarray(vectors, dtype=np.float32)
        if len(parts) == len(texts):
            return vectors
        lengths = whole_lengths(model.tokenizer, [reading.instruction + part for part in parts])
        return means(vectors, np.minimum(lengths, tokens), owners, len(texts))

    def token_counts(self, texts: Sequence[str], instruction: str) -> list[int] | None:
        """Tokens of each whole text behind an instruction; None of a model that reads texts of any length."""
        if not self._counts:
            return None
        return whole_lengths(self._model.tokenizer, [instruction + text for text in texts])

    @property
    def _counts(self) -> bool:
        """Whether the model cuts texts, as all but static ones do."""
        return self._model.max_seq_length not in (None, math.inf)

    @cached_property
    def _model(self) -> Any:
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(self.threads)
        folder = str(local_folder(self.path))
        model = SentenceTransformer(folder, trust_remote_code=False, local_files_only=True)
        needed, positions = max(self.max_tokens, self.window_tokens or 0), model.max_seq_length
        if positions is not None and positions < needed:
            raise ValueError(f"max_tokens is {needed} but {self.path} reads {positions}; lower max_tokens")
        for name, prompt in model.prompts.items():
            if prompt and prompt not in self.instructions:
                print(
                    f"{self.path} has a prompt {name!r}, {prompt!r}, that embed.prompts does not use", file=sys.stderr
                )
        return model.eval()
