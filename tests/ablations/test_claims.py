from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from stages.recipe.recipe import read
from tests.ablations import claims

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def values() -> dict[str, Any]:
    """A small file of claims, to change."""
    return {
        "num_resamples": 100,
        "seconds": dict.fromkeys(("distill", "adapter", "joint", "score", "start"), 1.0),
        "common": {},
        "variants": {"one": {"subject": "student", "set": {}}, "two": {"subject": "adapter", "set": {"seed": 3}}},
        "claims": {
            "first": {
                "says": "a",
                "source": "b",
                "comparisons": [{"above": "two ndcg-binary - ndcg", "below": "one spearman", "paper": "c"}],
            }
        },
    }


def read_claims(values: dict[str, Any], file: Path) -> claims.Suite:
    YAML(typ="safe").dump(values, file)
    return claims.read(file)


def test_a_side_names_a_variant_a_figure_and_what_is_taken_off(values: dict[str, Any], tmp_path: Path) -> None:
    suite = read_claims(values, tmp_path / "claims.yaml")
    assert suite.claims["first"].comparisons[0].sides == [("two", "ndcg-binary", "ndcg"), ("one", "spearman", None)]
    assert list(suite.needed(["first"]).items()) == [("one", {"text-matching"}), ("two", {"retrieval"})]


@pytest.mark.parametrize(
    ("above", "says"),
    [
        ("two", "expected `variant figure`"),
        ("two ndcg -ndcg", "expected `variant figure`"),
        ("three ndcg", r"claims.first: 'three' is no variant; those are \['one', 'two'\]"),
    ],
)
def test_a_side_that_cannot_be_read_is_refused(values: dict[str, Any], tmp_path: Path, above: str, says: str) -> None:
    values["claims"]["first"]["comparisons"][0]["above"] = above
    with pytest.raises(ValueError, match=says):
        read_claims(values, tmp_path / "claims.yaml")


def test_an_unknown_key_is_refused_by_name(values: dict[str, Any], tmp_path: Path) -> None:
    values["variants"]["one"]["sets"] = {}
    with pytest.raises(ValueError, match=r"claims\.yaml: variants\.one\.sets: Extra inputs"):
        read_claims(values, tmp_path / "claims.yaml")


SUITE = claims.read()


@pytest.mark.parametrize("name", SUITE.variants)
def test_every_variant_is_a_valid_recipe_that_differs_from_the_projects(
    recipe: dict[str, Any], tmp_path: Path, name: str
) -> None:
    yaml = YAML(typ="safe")
    for key, value in SUITE.variants[name].set.items():
        *parents, last = key.split(".")
        section = recipe
        for parent in parents:
            section = section[parent]
        assert last in section, f"{name} sets {key}, which the recipe does not have"
        section[last] = value
    yaml.dump(recipe, tmp_path / "params.yaml")
    changed = read(tmp_path / "params.yaml")
    assert (changed == read(ROOT / "params.yaml")) == (not SUITE.variants[name].set)


def test_every_variant_is_compared_and_truncates_to_dimensions_that_are_scored(recipe: dict[str, Any]) -> None:
    sides = [side for claim in SUITE.claims.values() for one in claim.comparisons for side in one.sides]
    assert {variant for variant, _, _ in sides} == SUITE.variants.keys()
    figures = {figure for _, *both in sides for figure in both if figure}
    scored = {f"ndcg@{dim}" for dim in recipe["evaluate"]["truncate_dims"]}
    assert figures <= scored | {"ndcg", "ndcg-binary", "spearman", "v_measure", "accuracy"}
