"""The models of a recipe by their configs: FLOPs, parameters and activations of the true modules, without weights."""

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerFast
from transformers.initialization import no_init_weights

from stages.corpus.locations import resolve
from stages.modeling.adapters import lora_config
from stages.modeling.encoder import Encoder, EncoderSettings
from stages.modeling.flops import TextFlops, count_flops, untrained_backbone, with_adapter
from stages.modeling.rotary import rotary_config
from stages.modeling.tokenization import ensure_end_of_sequence
from stages.modeling.warm_start import eurobert_config
from stages.recipe.distill import Distill
from stages.recipe.fields import Pooling

# Lengths of the two passes from which the bytes of a token and of a pass are read.
SHORT, LONG = 32, 64


class PlannedModel:
    """A backbone that a config describes, and some of its layers (None: all)."""

    def __init__(
        self, location: str, config: PreTrainedConfig, layers: tuple[int, ...] | None, pooling: Pooling
    ) -> None:
        self.config, self.layers, self.pooling, self._location = config, layers, pooling, location
        backbone: Any = untrained_backbone(config, layers)
        self.num_layers: int = backbone.config.num_hidden_layers
        self.parameters = sum(parameter.numel() for parameter in backbone.parameters())
        self.token_embeddings: int = backbone.get_input_embeddings().weight.numel()

    @functools.cache  # noqa: B019 - a plan holds its two models until it ends
    def flops(self, rank: int | None = None, *, backward: bool = False) -> TextFlops:
        """Count the FLOPs of a text, with an adapter of some rank that alone is trained (None: without)."""
        lora = None if rank is None else lora_config(rank, rank)
        return count_flops(untrained_backbone(self.config, self.layers), self.pooling, lora, backward=backward)

    def trained_parameters(self, rank: int | None, frozen_embeddings: bool) -> int:
        """Count the parameters that a phase trains: an adapter's, or the backbone's."""
        if rank is None:
            return self.parameters - (self.token_embeddings if frozen_embeddings else 0)
        adapted = with_adapter(untrained_backbone(self.config, self.layers), lora_config(rank, rank))
        return sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)

    @functools.cache  # noqa: B019
    def activations(self, precision: str) -> tuple[float, float]:
        """Measure the bytes that autograd saves of a token and of a pass, over tensors without data."""
        short, long = (self._saved_bytes(tokens, getattr(torch, precision)) for tokens in (SHORT, LONG))
        per_token = (long - short) / (LONG - SHORT)
        return per_token, short - SHORT * per_token

    def _saved_bytes(self, tokens: int, precision: torch.dtype) -> float:
        saved: dict[int, Any] = {}  # a storage is kept, so that its address is not used again

        def save(tensor: Tensor) -> Tensor:
            if tensor.is_floating_point():
                saved[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
            return tensor

        with FakeTensorMode(), no_init_weights():
            backbone = untrained_backbone(self.config, self.layers, "cpu").train()
            weights = {value.untyped_storage()._cdata for value in (*backbone.parameters(), *backbone.buffers())}
            with (
                torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32),
                torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor),
            ):
                backbone(input_ids=torch.zeros(1, tokens, dtype=torch.long))
        return float(sum(storage.nbytes() for address, storage in saved.items() if address not in weights))

    @functools.cache  # noqa: B019
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Load the tokenizer as an encoder of this pooling uses it."""
        tokenizer = _load(AutoTokenizer, self._location)
        if self.pooling == "last":
            ensure_end_of_sequence(tokenizer)
        return tokenizer

    def untrained_encoder(self, device: str) -> Encoder:
        """Build the model with random weights, to time it."""
        backbone = untrained_backbone(self.config, self.layers, device)
        return Encoder(backbone, self.tokenizer(), EncoderSettings(self.pooling, {"document": ""}, LONG))


def planned_teacher(path: str, pooling: Pooling, folders: Mapping[str, str]) -> PlannedModel:
    """Describe the teacher; `folders` maps names of models that are out of reach to folders that stand for them."""
    location = folders.get(path, path)
    return PlannedModel(location, _load(AutoConfig, location), None, pooling)


def planned_student(distill: Distill, folders: Mapping[str, str]) -> PlannedModel:
    """Describe the student that the distill stage builds; `folders` as in `planned_teacher`."""
    backbone, theta = distill.backbone, distill.rope_theta
    location = folders.get(backbone.path, backbone.path)
    config = _load(AutoConfig, location)
    if backbone.architecture != "pretrained":
        assert theta is not None, "checked with the recipe"
        assert backbone.max_position_embeddings is not None, "checked with the recipe"
        if backbone.architecture == "rotary":
            config = rotary_config(config, theta, backbone.max_position_embeddings)
        else:
            ids = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "mask_token_id"), 0)
            config = eurobert_config(backbone, theta, config.vocab_size, config.hidden_size, **ids)
    return PlannedModel(location, config, backbone.layers, distill.pooling)


def _load(kind: Any, location: str) -> Any:
    """Load a config or tokenizer; of a model on the hub nothing else is fetched.

    Raises:
        FileNotFoundError: it is out of reach; the message says how to do without.
    """
    try:
        return kind.from_pretrained(resolve(location), trust_remote_code=False)
    except OSError as error:
        raise FileNotFoundError(
            f"model {location!r} is out of reach; give a folder with its config.json and tokenizer: "
            f"--model {location}=FOLDER (no tokenizer is read if the size of every source is given)"
        ) from error
