"""Models of a plan: parameters, activations against a real pass, and the student that a recipe builds."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig

from stages.modeling.adapters import add_adapter
from stages.modeling.backbones import load_backbone
from stages.modeling.encoder import EncoderSettings, load_encoder
from stages.modeling.rotary import with_rotary_positions
from stages.planning.models import PlannedModel, planned_student, planned_teacher
from stages.recipe.distill import Distill
from stages.recipe.recipe import read

TINY = Path(__file__).parents[1] / "recipes" / "tiny.yaml"


def model(folder: Path, layers: tuple[int, ...] | None = None, pooling: Any = "mean") -> PlannedModel:
    return PlannedModel(str(folder), AutoConfig.from_pretrained(folder), layers, pooling)


def student(folder: Path, **shape: Any) -> PlannedModel:
    section = read(TINY).distill
    none = dict.fromkeys(("layers", "num_layers", "num_attention_heads", "intermediate_size"))
    backbone = section.backbone.model_copy(update=none | {"path": str(folder), "max_position_embeddings": 64} | shape)
    return planned_student(Distill.model_copy(section, update={"backbone": backbone, "rope_theta": 100.0}), {})


def parameters(backbone: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in backbone.parameters())


@pytest.mark.parametrize("architecture", ["bert", "eurobert", "qwen3", "modernbert"])
def test_activations_are_what_a_real_pass_keeps(backbones: dict[str, Path], architecture: str) -> None:
    """Every floating tensor that autograd saves, but for weights."""
    backbone: Any = load_backbone(str(backbones[architecture])).train()
    storages: dict[int, Any] = {}

    def save(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    own = {value.untyped_storage().data_ptr() for value in (*backbone.parameters(), *backbone.buffers())}
    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        states = backbone(input_ids=torch.zeros(1, 64, dtype=torch.long)).last_hidden_state
    assert states.requires_grad
    kept = sum(storage.nbytes() for address, storage in storages.items() if address not in own)
    per_token, per_pass = model(backbones[architecture]).activations("float32")
    assert per_token * 64 + per_pass == kept


def test_half_precision_keeps_less_a_token_and_a_copy_of_the_weights(backbones: dict[str, Path]) -> None:
    planned = model(backbones["eurobert"])
    (whole, fixed), (half, fixed_half) = (planned.activations(precision) for precision in ("float32", "bfloat16"))
    assert whole / 2 < half < whole
    assert fixed_half - fixed == pytest.approx(2 * planned.num_layers * (4 * 32 * 32 + 3 * 32 * 48), rel=0.05)


def test_trained_parameters_are_those_of_the_phase(backbones: dict[str, Path]) -> None:
    planned = model(backbones["eurobert"], layers=(0, 2))
    encoder = load_encoder(str(backbones["eurobert"]), EncoderSettings("mean", {}, 32), layers=(0, 2))
    embeddings = encoder.backbone.get_input_embeddings().weight.numel()
    assert planned.trained_parameters(None, frozen_embeddings=False) == parameters(encoder.backbone)
    assert planned.trained_parameters(None, frozen_embeddings=True) == parameters(encoder.backbone) - embeddings
    add_adapter(encoder, "retrieval", rank=4, alpha=4)
    trained = sum(parameter.numel() for parameter in encoder.parameters() if parameter.requires_grad)
    assert planned.trained_parameters(4, frozen_embeddings=True) == trained


def test_a_student_is_the_folder_some_layers_or_its_layers_under_rotary_positions(backbones: dict[str, Path]) -> None:
    path = backbones["bert"]
    assert student(path, architecture="pretrained").parameters == parameters(load_backbone(str(path)))
    some = load_backbone(str(path), [0, 2])
    assert student(path, architecture="pretrained", layers=(0, 2)).parameters == parameters(some)
    rotary = with_rotary_positions(some, 100.0, 64)
    assert student(path, architecture="rotary", layers=(0, 2)).parameters == parameters(rotary)


def test_a_student_built_anew(backbones: dict[str, Path]) -> None:
    """2 layers of 32: query, key, value and output, a gated MLP of 40, two norms; embeddings; a norm at the end."""
    shape = {"num_layers": 2, "num_attention_heads": 4, "intermediate_size": 40}
    planned = student(backbones["bert"], architecture="eurobert", **shape)
    assert planned.parameters - planned.token_embeddings == 2 * (4 * 32 * 32 + 3 * 32 * 40) + (2 * 2 + 1) * 32


def test_another_folder_stands_for_a_model_out_of_reach(backbones: dict[str, Path]) -> None:
    planned = planned_teacher("somebody/qwen3", "last", {"somebody/qwen3": str(backbones["qwen3"])})
    assert planned.config.model_type == "qwen3"
    assert len(planned.tokenizer()("ba")["input_ids"]) == 2, "last-token pooling ends a text"
    with pytest.raises(FileNotFoundError, match=r"'nobody/none' is out of reach; .*--model nobody/none=FOLDER"):
        planned_teacher("nobody/none", "last", {})
