"""Backbones: loading, choosing layers, and setting RoPE base and length."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from stages.corpus.locations import local_folder
from stages.modeling.model_files import check_backbone, named_failures


def load_backbone(location: str, layers: Sequence[int] | None = None) -> PreTrainedModel:
    """Load a backbone without dropout from a folder, a `package:` location or a hub id.

    Args:
        layers: numbers of the layers to take; None takes all.

    Raises:
        ValueError: weights are missing from the folder and would be left random, or it has no such layer.
        FileNotFoundError: there is no such model within reach.
    """
    transformers_logging.disable_progress_bar()  # the stages show bars of their own
    transformers_logging.set_verbosity_error()  # missing weights are refused below
    folder = local_folder(location)
    check_backbone(location, folder)
    advice = "take another model, or a version of transformers that knows it"
    with named_failures(location, f"transformers {transformers.__version__}", advice):
        config = without_dropout(AutoConfig.from_pretrained(folder, trust_remote_code=False))
        if hasattr(config, "use_cache"):
            config.use_cache = False  # nothing is generated; a decoder with a cache cannot be exported as a graph
        backbone, report = AutoModel.from_pretrained(
            folder,
            config=config,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    if config.is_encoder_decoder:
        raise ValueError(
            f"{location}: {config.model_type!r} has an encoder and a decoder, expected a backbone of one stack; as a "
            "teacher, take a folder in the format of Sentence Transformers (embed.teacher.kind: sentence_transformer)"
        )
    if hasattr(backbone, "pooler"):
        backbone.pooler = None
    refuse_random(location, report["missing_keys"])
    if layers is not None:
        keep_layers(backbone, layers)
    return backbone


def refuse_random(location: str, missing_keys: Iterable[str]) -> None:
    """Refuse a backbone with weights that are not in its folder; nothing reads BERT's pooler.

    Raises:
        ValueError: there are such weights, which would be random.
    """
    if random := sorted(key for key in missing_keys if not key.startswith("pooler.")):
        raise ValueError(
            f"{location}: {len(random)} weights are not in the folder and would be random: {random[:3]}; copy the "
            "whole model, or rename its weights as the architecture in config.json names them"
        )


def without_dropout(config: PreTrainedConfig) -> PreTrainedConfig:
    """Switch off every dropout of a config, in place; a batch embedded twice must give the same vectors."""
    for name, value in config.to_dict().items():
        if "dropout" in name and isinstance(value, float):
            setattr(config, name, 0.0)
    return config


def layers_of(backbone: nn.Module) -> nn.ModuleList:
    """Return a backbone's transformer layers: its longest list of modules.

    Raises:
        ValueError: there is no list of modules.
    """
    lists = [module for module in backbone.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise ValueError(f"got {type(backbone).__name__}, expected a backbone with a list of layers; take another one")
    return max(lists, key=len)


def keep_layers(backbone: PreTrainedModel, numbers: Sequence[int]) -> None:
    """Keep some of a backbone's transformer layers, numbered from 0, in place."""
    layers = layers_of(backbone)
    if wrong := [number for number in numbers if number >= len(layers)]:
        raise ValueError(f"layers: the backbone has no layer {wrong}, its numbers are 0 to {len(layers) - 1}")
    kept = [layers[number] for number in numbers]
    del layers[:]
    layers.extend(kept)
    backbone.config.num_hidden_layers = len(numbers)
    if kinds := getattr(backbone.config, "layer_types", None):
        backbone.config.layer_types = [kinds[number] for number in numbers]


def first_position(backbone: nn.Module) -> int:
    """Return the number of a text's first position: 0, or one more than the padding token's id (RoBERTa family)."""
    for name, module in backbone.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            return module.padding_idx + 1
    return 0


def take_length(backbone: Any, max_tokens: int) -> None:
    """Let a backbone read texts of `max_tokens` tokens; its config says so, because other tools cut texts by it.

    Raises:
        ValueError: its positions are a table that is shorter.
    """
    config = backbone.config
    positions = getattr(config, "max_position_embeddings", max_tokens) - first_position(backbone)
    if max_tokens <= positions:
        return
    if getattr(config, "rope_parameters", None) is None:
        raise ValueError(
            f"max_tokens is {max_tokens} but backbone {config.model_type!r} has {positions} positions; lower max_tokens"
        )
    config.max_position_embeddings = max_tokens


def set_rope_theta(backbone: Any, theta: float) -> None:
    """Set a backbone's RoPE base, in its config and in its rotary frequencies.

    Raises:
        ValueError: the backbone has no rotary position embedding of one base, or it scales the frequencies.
    """
    rotary = getattr(backbone, "rotary_emb", None)
    parameters = getattr(backbone.config, "rope_parameters", None)
    plain = parameters is not None and "rope_theta" in parameters and parameters.get("rope_type") == "default"
    if rotary is None or parameters is None or not plain:
        raise ValueError(
            f"rope_theta is {theta} but backbone {backbone.config.model_type!r} has no single, unscaled RoPE base; "
            "set it to null"
        )
    parameters["rope_theta"] = theta
    inv_freq, _ = rotary.compute_default_rope_parameters(backbone.config, device=rotary.inv_freq.device)
    rotary.inv_freq.copy_(inv_freq)
    rotary.original_inv_freq.copy_(inv_freq)
