"""Any model that Sentence Transformers loads as teacher: with its own pooling, Dense layers and normalisation.

The recipe gives the instructions. A model whose pooling leaves out its prompt leaves out the recipe's instruction too.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from stages.corpus.locations import files_digest, local_folder
from stages.modeling.truncation import average_windows, split_into_windows, whole_lengths
from stages.recipe.embed import Embed, SentenceTransformerFolder
from stages.recipe.engine import Engine
from stages.teachers.fingerprint import Fingerprint, with_digest
from stages.teachers.teacher import ReadingRule, longest_input

# Suffixes of the files that decide a model's vectors. Weights are read as safetensors only.
_SUFFIXES = {".json", ".txt", ".model", ".safetensors"}


@dataclass
class SentenceTransformerTeacher:
    """A model in the format of Sentence Transformers, from a folder or the hub.

    A batch holds as many texts as fit into `batch_tokens` when each is as long as it may be.
    """

    model: SentenceTransformerFolder
    section: Embed
    engine: Engine

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Digest of every file of the model, and the precision of its forward pass."""
        folder = local_folder(self.model.path)
        paths = sorted(path for path in folder.rglob("*") if path.suffix in _SUFFIXES and "openvino" not in path.parts)
        return with_digest(
            {
                "modules": files_digest(paths),
                "normalised": True,
                "precision": self.engine.precision,
                "dtype": "float16",
            }
        )

    def embed(self, texts: Sequence[str], rule: ReadingRule) -> np.ndarray:
        """Embed texts, longer ones in windows; returns unit vectors [N, T] float32."""
        model, tokens = self._loaded, min(rule.max_tokens, rule.window_tokens)
        around = whole_lengths(model.tokenizer, [rule.instruction])[0] if tokens < rule.max_tokens else 0
        parts, owners = split_into_windows(model.tokenizer, texts, rule.max_tokens, tokens, around)
        if self._cuts_texts:
            model.max_seq_length = tokens
        dtype = getattr(torch, self.engine.precision)
        with torch.autocast(model.device.type, dtype=dtype, enabled=dtype != torch.float32):
            vectors = model.encode(
                parts,
                prompt=rule.instruction,
                batch_size=max(1, self.section.batch_tokens // tokens),
                normalize_embeddings=True,
                show_progress_bar=False,
            )
        vectors = np.asarray(vectors, dtype=np.float32)
        if len(parts) == len(texts):
            return vectors
        lengths = whole_lengths(model.tokenizer, [rule.instruction + part for part in parts])
        return average_windows(vectors, np.minimum(lengths, tokens), owners, len(texts))

    def token_counts(self, texts: Sequence[str], instruction: str) -> list[int] | None:
        """Count the tokens of each whole text behind an instruction; None of a model that reads texts of any length."""
        if not self._cuts_texts:
            return None
        return whole_lengths(self._loaded.tokenizer, [instruction + text for text in texts])

    @property
    def _cuts_texts(self) -> bool:
        """Whether the model cuts long texts, as all but static models do."""
        return self._loaded.max_seq_length not in (None, math.inf)

    @cached_property
    def _loaded(self) -> SentenceTransformer:
        torch.set_num_threads(self.engine.threads)
        path, section = self.model.path, self.section
        model = SentenceTransformer(str(local_folder(path)), trust_remote_code=False, local_files_only=True)
        needed, positions = longest_input(section), model.max_seq_length
        if positions is not None and positions < needed:
            raise ValueError(f"max_tokens is {needed} but {path} reads {positions}; lower max_tokens")
        for name, prompt in model.prompts.items():
            if prompt and prompt not in section.prompts.values():
                print(f"{path} has a prompt {name!r}, {prompt!r}, that embed.prompts does not use", file=sys.stderr)
        return model.eval()
