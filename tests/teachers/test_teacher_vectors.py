"""The rule by which the recipe's teacher reads each text, and its vectors by source."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.recipe.embed import Embed
from stages.teachers.teacher import ROUTED, ReadingRule, longest_input, reading_rule
from stages.teachers.teacher_vectors import TeacherVectors
from stages.teachers.vector_store import VectorStore


@pytest.fixture
def section(recipe: dict[str, Any]) -> Embed:
    """Texts are read to 96 tokens, documents of the source `books` to 512 in windows of 128."""
    long = {"sources": ["books"], "max_tokens": 512, "window_tokens": 128}
    prompts = {"query": "q: ", "document": "", "clustering": "topic: "}
    return Embed.model_validate(recipe["embed"] | {"max_tokens": 96, "long": long, "prompts": prompts})


def test_only_documents_of_long_sources_are_read_in_windows(section: Embed) -> None:
    assert reading_rule(section, "document", "books") == ReadingRule("", 512, 128)
    assert reading_rule(section, "document", "news") == ReadingRule("", 96, 96)
    assert reading_rule(section, "query", "books") == ReadingRule("q: ", 96, 96)
    assert reading_rule(section, "clustering", "books") == ReadingRule("topic: ", 96, 96)


def test_the_longest_input_is_a_text_or_a_window(section: Embed) -> None:
    assert longest_input(section) == 128
    without_long = section.long.model_copy(update={"sources": ()})
    assert longest_input(section.model_copy(update={"long": without_long})) == 96


def test_a_text_has_the_vector_of_its_sources_rule(section: Embed, tmp_path: Path) -> None:
    store = VectorStore(tmp_path, {"weights": "w"})
    short, long = np.eye(4, dtype=np.float32)[:2]
    keys = [store.keys(rule, ["a"]) for rule in (ReadingRule("", 96, 96), ReadingRule("", 512, 128))]
    store.add(np.concatenate(keys), np.stack([short, long]))
    teacher = TeacherVectors(tmp_path, section)
    np.testing.assert_array_equal(
        teacher.of("document", ["a"] * 3, ["news", "books", "news"]), np.stack([short, long, short])
    )
    with pytest.raises(KeyError, match="1 of 1 texts have no teacher vector; run the embed stage"):
        teacher.of("query", ["a"], ["books"])


def test_a_side_has_its_own_vector_where_the_teacher_reads_sides_apart(section: Embed, tmp_path: Path) -> None:
    alike = section.model_copy(update={"prompts": dict.fromkeys(section.prompts, "")})
    for routed, num_vectors in ((True, 2), (False, 1)):
        store = VectorStore(tmp_path / str(routed), {"weights": "w", **({ROUTED: True} if routed else {})})
        for side, vector in zip(("document", "query"), np.eye(4, dtype=np.float32)[:2], strict=True):
            keys = store.keys(reading_rule(alike, side, "news"), ["a"])
            if not store.holds(keys).all():
                store.add(keys, vector[None])
        teacher = TeacherVectors(tmp_path / str(routed), alike)
        found = np.concatenate([teacher.of(side, ["a"], ["news"]) for side in ("document", "query")])
        np.testing.assert_array_equal(found, np.eye(4)[[0, num_vectors - 1]])
