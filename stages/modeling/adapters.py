"""LoRA adapters on a frozen backbone, one for each task by name, in PEFT's own format."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from torch import Tensor

from stages.modeling.encoder import Encoder

# PEFT 0.21 calls transformers 5.23 by a deprecated name; no user can change that.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)


def add_adapter(encoder: Encoder, task: str, rank: int, alpha: int) -> None:
    """Freeze the backbone and put a new LoRA adapter on all its linear maps, in place; it starts without effect.

    Example:
        >>> add_adapter(encoder, "retrieval", rank=32, alpha=32)
    """
    encoder.backbone = get_peft_model(encoder.backbone, lora_config(rank, alpha), adapter_name=task)


def lora_config(rank: int, alpha: int) -> LoraConfig:
    """Return PEFT's config of an adapter on all linear maps of a backbone."""
    return LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear", task_type="FEATURE_EXTRACTION")


@contextmanager
def without_adapter(encoder: Encoder) -> Iterator[None]:
    """Switch the adapter off inside the block."""
    assert isinstance(encoder.backbone, PeftModel), "the encoder carries no adapter"
    with encoder.backbone.disable_adapter():
        yield


def average_adapter(encoder: Encoder, earlier: dict[str, Tensor], weight: float) -> None:
    """Average the adapter with a snapshot of its tensors, in place: (1 - weight) * last + weight * earlier."""
    parameters = dict(encoder.named_parameters())
    with torch.no_grad():
        for name, tensor in earlier.items():
            # The snapshot of a resumed run comes from a file, and so from the CPU.
            parameters[name].lerp_(tensor.to(parameters[name].device), weight)


def save_adapter(encoder: Encoder, task: str, folder: Path) -> None:
    """Write `folder`/adapter_config.json and adapter_model.safetensors.

    Raises:
        ValueError: the adapter has no effect, so training did not reach it; or the folder has another name.
    """
    if folder.name != task:
        raise ValueError(f"got folder {folder}, expected the adapter's own name: {task}")
    assert isinstance(encoder.backbone, PeftModel), "the encoder carries no adapter"
    state = get_peft_model_state_dict(encoder.backbone, adapter_name=task)
    if all(not tensor.any() for name, tensor in state.items() if "lora_B" in name):
        raise ValueError(f"adapter {task} is zero: its training changed nothing; check steps and learning rate")
    config: Any = encoder.backbone.peft_config[task]
    config.target_modules = sorted(config.target_modules)  # the order of a set differs between processes
    # PEFT saves a named adapter in a folder of that name, and an empty model card beside it.
    encoder.backbone.save_pretrained(str(folder.parent), selected_adapters=[task], safe_serialization=True)
    (folder.parent / "README.md").unlink(missing_ok=True)


def load_adapter(encoder: Encoder, task: str, folder: Path) -> None:
    """Put a saved adapter on an encoder's backbone, beside its other adapters, and switch it on."""
    if isinstance(encoder.backbone, PeftModel):
        encoder.backbone.load_adapter(str(folder), adapter_name=task)
    else:
        encoder.backbone = PeftModel.from_pretrained(encoder.backbone, str(folder), adapter_name=task)
    encoder.backbone.set_adapter(task)


def merge_adapter(encoder: Encoder) -> None:
    """Add the adapter to the backbone's weights, in place; the encoder has no adapter afterwards."""
    assert isinstance(encoder.backbone, PeftModel), "the encoder carries no adapter"
    encoder.backbone = encoder.backbone.merge_and_unload(safe_merge=True)
