"""Fixtures: a release of a tiny student as the stage writes it, in the folder of a pipeline that ended before it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML

from stages import quantize
from stages.corpus.tables import SCHEMAS, write_table
from stages.modeling.adapters import add_adapter, save_adapter
from stages.modeling.encoder import EncoderSettings, load_encoder, saved_encoder
from stages.recipe.recipe import Recipe
from tests.conftest import TASKS

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = {"query": "query : ", "document": "document : "}
MAX_TOKENS, THETA = 40, 20_000.0


@pytest.fixture(scope="session")
def workspace(
    backbones: dict[str, Path], sentences: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A folder with curated text, an extended student and four adapters, in which the stage can run."""
    folder = tmp_path_factory.mktemp("workspace")
    origin = {"entity": "e", "source": "wikipedia", "language": "en", "license": "CC-BY-SA-4.0"}
    rows = [{"id": str(row), "query": "a", "document": text, **origin} for row, text in enumerate(sentences[:60])]
    write_table(folder / "data/curated/pairs/train.parquet", rows, SCHEMAS["pairs"])
    splits = {source["name"]: source["splits"] for source in tiny_values()["curate"]["sources"]}
    counts = {name: {"train": 60 if share["dev"] + share["test"] < 1 else 0} for name, share in splits.items()}
    (folder / "data/curated/counts.json").write_text(json.dumps(counts))
    settings = EncoderSettings("last", PROMPTS, 24, 10_000.0)
    student = folder / "data/extended/student"
    load_encoder(str(backbones["eurobert"]), settings).save(student)
    for seed, task in enumerate(TASKS):
        torch.manual_seed(seed)
        encoder = saved_encoder(student, None)
        add_adapter(encoder, task, rank=4, alpha=8)
        for name, parameter in encoder.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        save_adapter(encoder, task, folder / "data/adapted" / task)
        (folder / "data/adapted" / task / "curve.csv").write_text("step,loss\n1,2\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="session")
def recipe_of_release() -> Recipe:
    """The tiny recipe for a student of 32 dimensions."""
    values = tiny_values()
    values["distill"]["matryoshka_dims"] = values["evaluate"]["truncate_dims"] = [8, 16, 32]
    values["quantize"] |= {"max_tokens": MAX_TOKENS, "rope_theta": THETA, "num_calibration_texts": 30}
    values["engine"]["threads"] = 1
    return Recipe.model_validate(values)


@pytest.fixture(scope="session")
def built(workspace: Path, recipe_of_release: Recipe) -> Path:
    """The release as the stage wrote it; copy it before changing it."""
    quantize.quantize(recipe_of_release, workspace / "data/quantized")
    return workspace / "data/quantized" / recipe_of_release.name


def tiny_values() -> dict[str, Any]:
    values: dict[str, Any] = YAML(typ="safe").load(ROOT / "tests/recipes/tiny.yaml")
    return values
