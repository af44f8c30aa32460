"""Vectors are computed once for each model, side and texts, and never taken for another's."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from stages.evaluation import embedding_cache
from stages.evaluation.embedding_cache import DAYS, EmbeddingCache


class Model:
    """Gives vectors and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[Sequence[str], str]] = []

    def __call__(self, texts: Sequence[str], side: str) -> np.ndarray:
        self.asked.append((texts, side))
        return np.random.default_rng(len(self.asked)).normal(size=(len(texts), 3)).astype(np.float32)


def test_nothing_is_embedded_twice_and_whatever_determines_a_vector_is_in_its_key(tmp_path: Path) -> None:
    model = Model()
    first = EmbeddingCache(tmp_path).cached(model, "a", "float32")(["x", "y"], "query")
    again = EmbeddingCache(tmp_path).cached(model, "a", "float32")(["x", "y"], "query")
    np.testing.assert_array_equal(first, again)
    assert (again.dtype, len(model.asked)) == (np.float32, 1)
    EmbeddingCache(tmp_path).cached(model, "b", "float32")(["x", "y"], "query")
    EmbeddingCache(tmp_path).cached(model, "a", "float32")(["x", "y"], "document")
    EmbeddingCache(tmp_path).cached(model, "a", "float32")(["y", "x"], "query")
    assert len(model.asked) == 4


def test_other_code_and_other_threads_may_round_differently(tmp_path: Path, monkeypatch) -> None:
    model = Model()
    EmbeddingCache(tmp_path).cached(model, "a")(["x"], "query")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 99)
    EmbeddingCache(tmp_path).cached(model, "a")(["x"], "query")
    monkeypatch.setattr(embedding_cache, "digest", lambda _folder: "changed")
    EmbeddingCache(tmp_path).cached(model, "a")(["x"], "query")
    assert len(model.asked) == 3


def test_a_damaged_entry_is_computed_again(tmp_path: Path) -> None:
    model = Model()
    embed = EmbeddingCache(tmp_path).cached(model, "a")
    embed(["x"], "query")
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    second = embed(["x"], "query")
    assert len(model.asked) == 2
    np.testing.assert_array_equal(embed(["x"], "query"), second)
    assert len(model.asked) == 2


def test_an_entry_that_nobody_uses_is_removed(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path)
    embed = cache.cached(Model(), "a")
    embed(["old"], "query")
    (old,) = tmp_path.iterdir()
    long_ago = time.time() - (DAYS + 1) * 86400
    os.utime(old, (long_ago, long_ago))
    embed(["new"], "query")
    cache.remove_unused()
    assert len(list(tmp_path.iterdir())) == 1 and not old.exists()
