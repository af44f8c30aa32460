"""The models that are compared: teacher, static baseline, base, base trained on, adapters; all give vectors of texts.

Shapes: N texts, D embedding dimension (the teacher has its own).
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from stages.evaluation.embedding_cache import Embed, EmbeddingCache
from stages.modeling.adapters import load_adapter
from stages.modeling.encoder import Encoder, place, saved_encoder
from stages.modeling.warm_start import StaticEmbedder
from stages.teachers.teacher_vectors import TeacherVectors
from stages.tracking.digests import digest

# Models that are no adapter, with their files in data/distilled beside the release's base.
DISTILLED_FILES = {"base": (), "continued": ("continued",), "static": ("static.safetensors",)}


class ComparedModels(ABC):
    """Models by name; each text is embedded once per model and side, however many tasks use it.

    Args:
        adapters: folder with a folder for each task that the models have an adapter for.
    """

    def __init__(self, adapters: Path) -> None:
        self.tasks = {path.name for path in adapters.iterdir()}
        self._models: dict[str, Embed] = {}
        self._vectors: dict[tuple[str, str], dict[str, np.ndarray]] = {}

    def embed(self, name: str, texts: Sequence[str], side: str, source: str) -> np.ndarray:
        """Embed a source's texts with the model called `name`: unit vectors [N, D].

        Args:
            side: `query` or `document`; only retrieval has queries. Each model puts its own prompt before a text.
        """
        vectors = self._vectors.setdefault((name, side), {})
        new = [text for text in dict.fromkeys(texts) if text not in vectors]
        if new:
            if name not in self._models:
                self._models[name] = self._load(name)
            vectors.update(zip(new, self._models[name](new, side), strict=True))
        return np.stack([vectors[text] for text in texts])

    @abstractmethod
    def _load(self, name: str) -> Embed:
        """Load the model called `name`."""


class BuildModels(ComparedModels):
    """The models of a build: `teacher`, `static`, `base`, `continued`, and each adapter under its task's name."""

    def __init__(
        self, distilled: Path, release: Path, teacher: TeacherVectors, precision: str, cache: EmbeddingCache
    ) -> None:
        super().__init__(release / "adapters")
        self._distilled, self._release, self._teacher = distilled, release, teacher
        self._precision, self._cache = precision, cache

    def embed(self, name: str, texts: Sequence[str], side: str, source: str) -> np.ndarray:
        """As `ComparedModels.embed`; the teacher's vectors come from its store."""
        if name == "teacher":
            return self._teacher.of(side, texts, [source] * len(texts)).astype(np.float32)
        return super().embed(name, texts, side, source)

    def encoder(self, name: str) -> Encoder:
        """Load `base`, `continued`, or the base with the adapter of a task."""
        encoder = saved_encoder(self._release / "base", rope_theta=None)
        if name == "continued":  # with the base's cut, so that it reads as much of a text as the others
            return saved_encoder(self._distilled / "continued", None, encoder.settings.max_tokens)
        if name != "base":
            load_adapter(encoder, name, self._release / "adapters" / name)
        return encoder

    def _load(self, name: str) -> Embed:
        adapter = [self._release / "adapters" / name]
        files = [self._distilled / file for file in DISTILLED_FILES[name]] if name in DISTILLED_FILES else adapter
        digests = [digest(path) for path in (self._release / "base", *files)]
        model = functools.cache(lambda: self._model(name))  # stays unloaded while the cache has all vectors
        return self._cache.cached(lambda texts, side: model()(texts, side), name, self._precision, *digests)

    def _model(self, name: str) -> Embed:
        if name == "static":
            static = load_file(self._distilled / "static.safetensors")
            return StaticEmbedder(static["table"], static["weights"], self.encoder("base")).encode
        return _embedder(self.encoder(name), self._precision, name)


class ReleasedModels(ComparedModels):
    """The models of a registered release: the merged model of each task, as it is served."""

    def __init__(self, merged: Path, precision: str) -> None:
        super().__init__(merged)
        self._merged, self._precision = merged, precision

    def _load(self, name: str) -> Embed:
        encoder = saved_encoder(self._merged / name, rope_theta=None)
        return _embedder(encoder, self._precision, f"champion's {name}")


def _embedder(encoder: Encoder, precision: str, label: str) -> Embed:
    place(encoder, precision=precision, packing=False)
    return lambda texts, side: encoder.encode(texts, side, progress=f"{label}, {side}")
