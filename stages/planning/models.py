"""The models of a recipe as their configs and tokenizers have them; no weights are read."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from transformers import AutoConfig, AutoTokenizer, EuroBertConfig, PreTrainedConfig, PreTrainedTokenizerFast

from stages.corpus.locations import resolve
from stages.modeling.flops import Shape, shape_of_config
from stages.modeling.rotary import rotary_config
from stages.modeling.tokenization import ensure_end_of_sequence
from stages.planning.memory import Activations, activations


class Backbone(Protocol):
    """A recipe's student: a folder or hub id, and what is made of it."""

    path: str
    architecture: Any
    layers: tuple[int, ...] | None
    num_layers: Any  # these too are None where the architecture has no use for them
    num_attention_heads: Any
    intermediate_size: Any
    max_position_embeddings: Any


class Models:
    """Configs and tokenizers by the recipe's names, some of them read from other folders."""

    def __init__(self, folders: Mapping[str, str]) -> None:
        self._folders = dict(folders)

    def config(self, name: str) -> PreTrainedConfig:
        """The config of a model.

        Raises:
            FileNotFoundError: it is out of reach; says how to give a folder instead.
        """
        try:
            config: PreTrainedConfig = AutoConfig.from_pretrained(self._location(name), trust_remote_code=False)
        except OSError as error:
            raise FileNotFoundError(
                f"model {name!r} is out of reach; give a folder with its config.json and tokenizer: "
                f"--model {name}=FOLDER"
            ) from error
        return config

    def tokenizer(self, name: str, pooling: str) -> PreTrainedTokenizerFast:
        """The tokenizer of a model, as an encoder of some pooling uses it.

        Raises:
            FileNotFoundError: it is out of reach; says what else would do.
        """
        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(self._location(name), trust_remote_code=False, use_fast=True)
        except OSError as error:
            raise FileNotFoundError(
                f"the tokenizer of {name!r} is out of reach; give a folder that holds it, --model {name}=FOLDER, "
                "or the size of every source, --rows SOURCE=N and --tokens-per-text N"
            ) from error
        if pooling == "last":
            ensure_end_of_sequence(tokenizer)
        return tokenizer

    def student(self, backbone: Backbone, rope_theta: float | None) -> tuple[PreTrainedConfig, int]:
        """Config of a recipe's student, and its number of layers."""
        donor: Any = self.config(backbone.path)
        if backbone.architecture == "eurobert":
            config = EuroBertConfig(
                vocab_size=donor.vocab_size,
                hidden_size=donor.hidden_size,
                intermediate_size=backbone.intermediate_size,
                num_hidden_layers=backbone.num_layers,
                num_attention_heads=backbone.num_attention_heads,
                max_position_embeddings=backbone.max_position_embeddings,
                pad_token_id=donor.pad_token_id,
                bos_token_id=None,
                eos_token_id=None,
                mask_token_id=donor.pad_token_id,  # which nothing uses, but the config wants one
            )
            return config, backbone.num_layers
        num_layers = donor.num_hidden_layers if backbone.layers is None else len(backbone.layers)
        if backbone.architecture == "rotary":
            assert rope_theta is not None, "checked with the recipe"
            return rotary_config(donor, rope_theta, backbone.max_position_embeddings), num_layers
        return donor, num_layers

    def shape(self, config: PreTrainedConfig, num_layers: int, precision: str) -> tuple[Shape, Activations]:
        """Shape of a backbone, and the bytes of its activations in a precision."""
        return shape_of_config(config, num_layers), activations(config, num_layers, getattr(torch, precision))

    def _location(self, name: str) -> str:
        """Folder or hub id of a model: of a hub's model, config and tokenizer alone are fetched."""
        return resolve(self._folders.get(name, name))
