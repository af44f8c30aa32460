"""Models by config and tokenizer: out of reach, from another folder, and the student that a recipe makes of one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stages.modeling.backbones import load_backbone
from stages.modeling.flops import shape_of
from stages.modeling.rotary import with_rotary_positions
from stages.planning.models import Models


@dataclass(frozen=True)
class Backbone:
    path: str
    architecture: str = "pretrained"
    layers: tuple[int, ...] | None = None
    num_layers: int | None = None
    num_attention_heads: int | None = None
    intermediate_size: int | None = None
    max_position_embeddings: int | None = None


def test_a_model_out_of_reach_says_what_would_do() -> None:
    models = Models({})
    with pytest.raises(FileNotFoundError, match=r"'nobody/none' is out of reach.*--model nobody/none=FOLDER"):
        models.config("nobody/none")
    with pytest.raises(FileNotFoundError, match=r"tokenizer of 'nobody/none'.*--rows SOURCE=N and --tokens-per-text N"):
        models.tokenizer("nobody/none", "mean")


def test_another_folder_stands_for_a_model(backbones: dict[str, Path]) -> None:
    models = Models({"somebody/bert": str(backbones["bert"])})
    assert models.config("somebody/bert").model_type == "bert"
    assert models.tokenizer("somebody/bert", "mean")("ba")["input_ids"][0] == 2


def test_last_token_pooling_ends_texts(backbones: dict[str, Path]) -> None:
    models = Models({})
    lengths = [len(models.tokenizer(str(backbones["qwen3"]), how)("ba")["input_ids"]) for how in ("mean", "last")]
    assert lengths == [1, 2]


def test_the_student_is_the_folder_or_some_of_its_layers(backbones: dict[str, Path]) -> None:
    models, path = Models({}), str(backbones["qwen3"])
    for layers, expected in ((None, None), ((0, 2), [0, 2])):
        shape, kept = models.shape(*models.student(Backbone(path, layers=layers), None), "float32")
        assert shape == shape_of(load_backbone(path, expected))
        assert kept.token > 0


def test_a_student_under_rotary_positions(backbones: dict[str, Path]) -> None:
    path = str(backbones["bert"])
    recipe = Backbone(path, "rotary", layers=(0, 2), max_position_embeddings=128)
    shape, _ = Models({}).shape(*Models({}).student(recipe, 100.0), "float32")
    assert shape == shape_of(with_rotary_positions(load_backbone(path, [0, 2]), 100.0, 128))


def test_a_student_built_anew(backbones: dict[str, Path]) -> None:
    """2 layers of 32: query, key, value and output, a gated MLP of 40, two norms; embeddings; a norm at the end."""
    recipe: Any = Backbone(str(backbones["bert"]), "eurobert", None, 2, 4, 40, 64)
    shape, _ = Models({}).shape(*Models({}).student(recipe, 100.0), "float32")
    assert shape.num_layers == 2
    assert shape.linears.weights == 2 * (4 * 32 * 32 + 3 * 32 * 40)
    assert shape.parameters == shape.embedding_parameters + shape.linears.weights + (2 * 2 + 1) * 32
