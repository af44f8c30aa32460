"""How the recipe's teacher reads each text, and its vectors by source."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from stages.teachers.teacher_vectors import Readings, TeacherVectors
from stages.teachers.teacher import ReadingRule
from stages.teachers.vector_store import VectorStore

PROMPTS = {"query": "q: ", "document": "", "clustering": "topic: "}


@dataclass(frozen=True)
class Long:
    sources: tuple[str, ...] = ("books",)
    max_tokens: int = 512
    window_tokens: int = 128


def test_only_documents_of_long_sources_are_read_in_windows() -> None:
    readings = Readings(PROMPTS, 96, Long())
    assert readings.of("document", "books") == ReadingRule("", 512, 128)
    assert readings.of("document", "news") == ReadingRule("", 96, 96)
    assert readings.of("query", "books") == ReadingRule("q: ", 96, 96)
    assert readings.of("clustering", "books") == ReadingRule("topic: ", 96, 96)


def test_a_text_has_the_vector_of_its_sources_reading(tmp_path: Path) -> None:
    store = VectorStore(tmp_path, {"weights": "w"})
    short, long = (np.eye(4, dtype=np.float32)[place] for place in (0, 1))
    keys = [store.keys(reading, ["a"]) for reading in (ReadingRule("", 96, 96), ReadingRule("", 512, 128))]
    store.add(np.concatenate(keys), np.stack([short, long]))
    teacher = TeacherVectors(tmp_path, PROMPTS, 96, Long())
    np.testing.assert_array_equal(
        teacher.of("document", ["a"] * 3, ["news", "books", "news"]), np.stack([short, long, short])
    )
    with pytest.raises(KeyError, match="1 of 1 texts have no teacher vector; run the embed stage"):
        teacher.of("query", ["a"], ["books"])
