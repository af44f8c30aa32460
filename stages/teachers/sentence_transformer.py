"""Any model that Sentence Transformers loads as teacher: with its own pooling, Dense layers and normalisation.

The recipe gives the instructions. A model whose pooling leaves out its prompt leaves out the recipe's instruction too.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import sentence_transformers
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Router

from stages.corpus.locations import local_folder
from stages.modeling.backbones import refuse_random
from stages.modeling.model_files import named_failures
from stages.modeling.truncation import average_windows, split_into_windows, whole_lengths
from stages.recipe.embed import Embed, SentenceTransformerFolder
from stages.recipe.engine import Engine
from stages.teachers.fingerprint import Fingerprint, model_files, named_digest, with_digest
from stages.teachers.module_files import BACKBONES, ROUTERS, ListedModule, listed_modules, tell_unused_settings
from stages.teachers.teacher import ROUTED, ReadingRule, longest_input


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
        """Digest of every file of the model, the precision of its forward pass, and whether it reads sides apart."""
        folder = local_folder(self.model.path)
        modules = listed_modules(self.model.path, folder)
        files = [path for path in model_files(folder.rglob("*")) if not _is_aside(path.relative_to(folder))]
        return with_digest(
            {
                "modules": named_digest(folder, files),
                "normalised": True,
                "precision": self.engine.precision,
                "dtype": "float16",
                **({ROUTED: True} if any(module.kind in ROUTERS for module in modules) else {}),
            }
        )

    def embed(self, texts: Sequence[str], rule: ReadingRule) -> np.ndarray:
        """Embed texts, longer ones in windows; returns unit vectors [N, T] float32."""
        model, tokens, route = self._loaded, min(rule.max_tokens, rule.window_tokens), self._route(rule.side)
        reader = self._reader(route)
        around = whole_lengths(reader.tokenizer, [rule.instruction])[0] if tokens < rule.max_tokens else 0
        parts, owners = split_into_windows(reader.tokenizer, texts, rule.max_tokens, tokens, around)
        if _cuts_texts(reader):
            reader.max_seq_length = tokens
        dtype, task = getattr(torch, self.engine.precision), dict[str, Any](task=route) if route else {}
        with torch.autocast(model.device.type, dtype=dtype, enabled=dtype != torch.float32):
            vectors = model.encode(
                parts,
                prompt=rule.instruction,
                batch_size=max(1, self.section.batch_tokens // tokens),
                normalize_embeddings=True,
                show_progress_bar=False,
                **task,
            )
        vectors = np.asarray(vectors, dtype=np.float32)
        if len(parts) == len(texts):
            return vectors
        lengths = whole_lengths(reader.tokenizer, [rule.instruction + part for part in parts])
        return average_windows(vectors, np.minimum(lengths, tokens), owners, len(texts))

    def token_counts(self, texts: Sequence[str], instruction: str) -> list[int] | None:
        """Count the tokens of each whole text behind an instruction; None of a model that reads texts of any length."""
        reader = self._reader(self._route("document"))
        if not _cuts_texts(reader):
            return None
        return whole_lengths(reader.tokenizer, [instruction + text for text in texts])

    def _route(self, side: str) -> str | None:
        """Return the route of an asymmetric model for texts of a side; it reads texts for clustering as documents."""
        is_routed = any(isinstance(module, Router) for module in self._loaded)
        return ("query" if side == "query" else "document") if is_routed else None

    def _reader(self, route: str | None) -> Any:
        """Return the module that splits texts of a route into tokens."""
        first: Any = self._loaded[0]
        routes: Any = getattr(first, "sub_modules", None)
        return routes[route][0] if isinstance(first, Router) else first

    @cached_property
    def _loaded(self) -> SentenceTransformer:
        torch.set_num_threads(self.engine.threads)
        path, section = self.model.path, self.section
        folder, needed = local_folder(path), longest_input(section)
        modules = listed_modules(path, folder)
        advice = "load it with the version that made it and save it again, or take another model"
        with named_failures(path, f"Sentence Transformers {sentence_transformers.__version__}", advice):
            model = SentenceTransformer(
                str(folder),
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"dtype": torch.float32},  # Otherwise every module is rounded to the backbone's precision.
            )
        for module in modules:
            if module.kind in BACKBONES:
                _refuse_random_weights(path, model, module)
        readers: Any = model[0].sub_modules.values() if isinstance(model[0], Router) else [model]
        for positions in (getattr(reader[0], "max_seq_length", None) for reader in readers):
            if positions is not None and positions < needed:
                raise ValueError(f"max_tokens is {needed} but {path} reads {positions}; lower max_tokens")
        tell_unused_settings(path, folder, section.prompts.values())
        return model.float().eval()


def _is_aside(path: Path) -> bool:
    """Tell whether a path inside a model's folder is of another format, or hidden, as git's and the hub's files are."""
    return any(part in ("openvino", "onnx") or part.startswith(".") for part in path.parts)


def _cuts_texts(reader: Any) -> bool:
    """Tell whether a module cuts long texts, as all but static ones do."""
    return getattr(reader, "max_seq_length", None) not in (None, math.inf)


def _refuse_random_weights(path: str, model: SentenceTransformer, module: ListedModule) -> None:
    """Refuse a backbone whose weights are not all in its folder; the rest would be random."""
    loaded: Any = model
    for part in module.place:
        loaded = loaded.sub_modules[part] if isinstance(part, str) else loaded[part]
    backbone = loaded.auto_model
    _, report = type(backbone).from_pretrained(
        module.folder, config=backbone.config, device_map="meta", output_loading_info=True, local_files_only=True
    )
    refuse_random(path, report["missing_keys"])
