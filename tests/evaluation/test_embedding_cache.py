"""Vectors are computed once for each model, side and texts, and never taken for another's."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from stages.evaluation import embedding_cache as kept
from stages.evaluation.embedding_cache import DAYS, KeptVectors


class Model:
    """Gives vectors and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[Sequence[str], str]] = []

    def __call__(self, texts: Sequence[str], side: str) -> np.ndarray:
        self.asked.append((texts, side))
        return np.random.default_rng(len(self.asked)).normal(size=(len(texts), 3)).astype(np.float32)


def test_nothing_is_embedded_twice_and_all_that_decides_a_vector_tells_it_apart(tmp_path: Path) -> None:
    model = Model()
    first = KeptVectors(tmp_path).by(model, "a", "float32")(["x", "y"], "query")
    again = KeptVectors(tmp_path).by(model, "a", "float32")(["x", "y"], "query")
    np.testing.assert_array_equal(first, again)
    assert (again.dtype, len(model.asked)) == (np.float32, 1)
    KeptVectors(tmp_path).by(model, "b", "float32")(["x", "y"], "query")
    KeptVectors(tmp_path).by(model, "a", "float32")(["x", "y"], "document")
    KeptVectors(tmp_path).by(model, "a", "float32")(["y", "x"], "query")
    assert len(model.asked) == 4


def test_other_code_and_other_threads_may_round_differently(tmp_path: Path, monkeypatch) -> None:
    model = Model()
    KeptVectors(tmp_path).by(model, "a")(["x"], "query")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 99)
    KeptVectors(tmp_path).by(model, "a")(["x"], "query")
    monkeypatch.setattr(kept, "digest", lambda _folder: "changed")
    KeptVectors(tmp_path).by(model, "a")(["x"], "query")
    assert len(model.asked) == 3


def test_what_is_damaged_is_computed_again(tmp_path: Path) -> None:
    model = Model()
    embed = KeptVectors(tmp_path).by(model, "a")
    embed(["x"], "query")
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    second = embed(["x"], "query")
    assert len(model.asked) == 2
    np.testing.assert_array_equal(embed(["x"], "query"), second)
    assert len(model.asked) == 2


def test_what_nobody_asks_for_is_forgotten(tmp_path: Path) -> None:
    all_of_it = KeptVectors(tmp_path)
    embed = all_of_it.by(Model(), "a")
    embed(["old"], "query")
    (old,) = tmp_path.iterdir()
    long_ago = time.time() - (DAYS + 1) * 86400
    os.utime(old, (long_ago, long_ago))
    embed(["new"], "query")
    all_of_it.forget_unused()
    assert len(list(tmp_path.iterdir())) == 1 and not old.exists()
