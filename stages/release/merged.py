"""A task's model in the Sentence Transformers format: transformer, pooling, normalisation, prompts."""

from collections.abc import Mapping
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Normalize, Pooling, Transformer

from stages.modeling.encoder import Encoder

_POOLING_NAMES = {"last": "lasttoken", "mean": "mean", "cls": "cls"}


def save_sentence_transformer(encoder: Encoder, prompts: Mapping[str, str], folder: Path) -> None:
    """Write an encoder without adapters, or with a merged one, as a Sentence Transformers folder.

    The document prompt is the default: a caller who names no prompt embeds documents, the larger side.
    """
    folder.mkdir(parents=True, exist_ok=True)
    encoder.save(folder)
    transformer = Transformer(str(folder), max_seq_length=encoder.settings.max_tokens)
    if (pooler := getattr(transformer.auto_model, "pooler", None)) is not None:
        # The pooler is unused and untrained, so loading fills it at random; zeros are the same bytes in every build.
        for parameter in pooler.parameters():
            torch.nn.init.zeros_(parameter)
    pooling = Pooling(encoder.dimensions, pooling_mode=_POOLING_NAMES[encoder.settings.pooling])
    model = SentenceTransformer(
        modules=[transformer, pooling, Normalize()], prompts=dict(prompts), default_prompt_name="document", device="cpu"
    )
    model.save_pretrained(str(folder), create_model_card=False, safe_serialization=True)
