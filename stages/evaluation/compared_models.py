"""Who is compared: teacher, static baseline, stage-1 base, stage 1 continued, each adapter; all as text -> vectors.

Shapes: N texts, D embedding dimension (the teacher has its own).
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from stages.evaluation.embedding_cache import Embed, KeptVectors
from stages.modeling.encoder import Encoder, place, saved_encoder
from stages.modeling.warm_start import StaticEmbedder
from stages.teachers.teacher_vectors import TeacherVectors
from stages.tracking.runs import digest

# Those that are no adapter, with what they have in data/distilled beside the release's base.
DISTILLED = {"base": (), "continued": ("continued",), "static": ("static.safetensors",)}


class Remembering(ABC):
    """Embeds each text once per name and side, however many tasks read it."""

    def __init__(self) -> None:
        self._loaded: dict[str, Embed] = {}
        self._known: dict[tuple[str, str], dict[str, np.ndarray]] = {}

    def embed(self, name: str, texts: Sequence[str], side: str, source: str) -> np.ndarray:
        """Unit vectors [N, D] of a source's texts.

        Args:
            side: `query` or `document`; only retrieval reads queries, under every contender's own prompt.
        """
        known = self._known.setdefault((name, side), {})
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known.update(zip(new, self._contender(name)(new, side), strict=True))
        return np.stack([known[text] for text in texts])

    def _contender(self, name: str) -> Embed:
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    @abstractmethod
    def _load(self, name: str) -> Embed:
        """What embeds texts of a side under this name."""


class Contenders(Remembering):
    """Those of a build: teacher, static, base, continued, and the adapters by task."""

    def __init__(
        self, distilled: Path, release: Path, teacher: TeacherVectors, precision: str, kept: KeptVectors
    ) -> None:
        super().__init__()
        self._distilled, self._release, self._teacher, self._precision = distilled, release, teacher, precision
        self._kept = kept

    def embed(self, name: str, texts: Sequence[str], side: str, source: str) -> np.ndarray:
        """As `Remembering.embed`; the teacher has its vectors already."""
        if name == "teacher":
            return self._teacher.of(side, texts, [source] * len(texts)).astype(np.float32)
        return super().embed(name, texts, side, source)

    def encoder(self, name: str) -> Encoder:
        """The student called `name`, its adapter on where it is a task."""
        from stages.modeling.adapters import load_adapter  # PEFT takes seconds, and what is kept needs no model

        encoder = saved_encoder(self._release / "base", rope_theta=None)
        if name == "continued":  # reads as much of a text as the others
            return saved_encoder(self._distilled / "continued", None, encoder.settings.max_tokens)
        if name != "base":
            load_adapter(encoder, name, self._release / "adapters" / name)
        return encoder

    def _load(self, name: str) -> Embed:
        adapter = [self._release / "adapters" / name]
        files = [self._distilled / one for one in DISTILLED[name]] if name in DISTILLED else adapter
        model = functools.cache(lambda: self._model(name))  # not loaded where all its vectors are kept
        identity = [digest(one) for one in (self._release / "base", *files)]
        return self._kept.by(lambda texts, side: model()(texts, side), name, self._precision, *identity)

    def _model(self, name: str) -> Embed:
        if name == "static":
            static = load_file(self._distilled / "static.safetensors")
            return StaticEmbedder(static["table"], static["weights"], self.encoder("base")).encode
        encoder = place(self.encoder(name), precision=self._precision, packing=False)
        return lambda texts, side: encoder.encode(texts, side, progress=f"{name}, {side}")


class Released(Remembering):
    """A registered release: the merged model of each task, as it is served."""

    def __init__(self, merged: Path, precision: str) -> None:
        super().__init__()
        self._merged, self._precision = merged, precision

    def _load(self, name: str) -> Embed:
        encoder = place(saved_encoder(self._merged / name, rope_theta=None), precision=self._precision, packing=False)
        return lambda texts, side: encoder.encode(texts, side, progress=f"champion's {name}, {side}")
