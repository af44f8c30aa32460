"""Which columns of a recipe's sources the teacher reads."""

from typing import Any

import pytest

from stages.recipe.recipe import Recipe
from stages.teachers.teacher_inputs import TeacherInput, teacher_inputs


@pytest.fixture
def sections(short_recipe: dict[str, Any]) -> dict[str, Any]:
    """Sections of a recipe with sources of each kind, among them those of the evaluation of long texts."""
    recipe = Recipe.model_validate(short_recipe)
    kinds = {
        "wiki": "pairs", "long": "pairs", "sts": "scored", "topics": "labelled", "books": "documents",
        "manual": "documents", "talks": "parallel",
    }  # fmt: skip
    source = recipe.curate.sources[0]
    sources = tuple(source.model_copy(update={"name": name, "kind": kind}) for name, kind in kinds.items())
    matching = recipe.adapt.text_matching.model_copy(update={"pair_sources": ("wiki",)})
    clustering = recipe.adapt.clustering.model_copy(update={"sources": ("wiki",)})
    return {
        "curate": recipe.curate.model_copy(update={"sources": sources}),
        "adapt": recipe.adapt.model_copy(update={"text_matching": matching, "clustering": clustering}),
        "evaluate": recipe.evaluate,
    }


def test_every_column_that_something_needs_and_no_other(sections: dict[str, Any]) -> None:
    long = sections["evaluate"].long.model_copy(update={"articles": "long", "haystacks": "books"})
    sections["evaluate"] = sections["evaluate"].model_copy(update={"long": long})
    assert teacher_inputs(**sections) == [
        TeacherInput("pairs", "query", "query", ("wiki",)),
        TeacherInput("pairs", "document", "document", ("wiki",)),
        TeacherInput("pairs", "query", "document", ("wiki",)),
        TeacherInput("pairs", "query", "clustering", ("wiki",)),
        TeacherInput("pairs", "document", "clustering", ("wiki",)),
        TeacherInput("scored", "text_a", "document", ("sts",)),
        TeacherInput("scored", "text_b", "document", ("sts",)),
        TeacherInput("labelled", "text", "document", ("topics",)),
        TeacherInput("documents", "text", "document", ("manual",)),
        TeacherInput("parallel", "text", "query", ("talks",)),
        TeacherInput("parallel", "text", "document", ("talks",)),
    ]


def test_all_pairs_are_read_where_no_articles_are_measured(sections: dict[str, Any]) -> None:
    assert teacher_inputs(**sections)[0].sources == ("wiki", "long")
