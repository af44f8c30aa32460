"""The student before training: the static embedder in closed form, and the encoder that starts from it.

Shapes: N texts, V vocabulary, D student dimension, T teacher dimension.
"""

from dataclasses import dataclass, replace

import numpy as np

from stages.modeling import warm_start
from stages.modeling.encoder import Encoder, EncoderSettings, load_backbone, load_encoder, load_tokenizer
from stages.modeling.rotary import with_rotary_positions
from stages.modeling.tokens import Tokens
from stages.recipe.distill import Distill


@dataclass(frozen=True)
class StaticStart:
    """The static embedder `weighted_mean(table, weights, tokens) @ mapping`."""

    table: np.ndarray  # [V, D], the token embeddings of the recipe's backbone
    weights: np.ndarray  # [V]
    mapping: np.ndarray  # [D, D]

    def mapped(self) -> dict[str, np.ndarray]:
        """Return the embedder as it is saved: the mapped table [V, D] float16 and the weights [V] float32."""
        return {
            "table": (self.table @ self.mapping).astype(np.float16),
            "weights": self.weights.astype(np.float32),
        }


def token_donor(settings: Distill) -> Encoder:
    """Load the backbone whose tokenizer and token embeddings the student takes, with the student's prompts and cut."""
    path = settings.backbone.path
    return Encoder(load_backbone(path), load_tokenizer(path), replace(_encoder_settings(settings), rope_theta=None))


def fit_static(donor: Encoder, tokens: Tokens, teacher: np.ndarray, ridge_penalty: float) -> StaticStart:
    """Fit the static embedder to the teacher's vectors [N, T] of N texts."""
    table = warm_start.token_table(donor.backbone)
    weights = warm_start.token_weights(tokens, len(table))
    return StaticStart(table, weights, warm_start.static_map(table, weights, tokens, teacher, ridge_penalty))


def build_student(settings: Distill, donor: Encoder, start: StaticStart) -> Encoder:
    """Build the student by `distill.backbone.architecture`.

    `pretrained` takes the folder's own layers, `rotary` puts them under rotary positions, and `eurobert` is a new
    backbone that begins as the static embedder.
    """
    shape, encoder_settings = settings.backbone, _encoder_settings(settings)
    if shape.architecture == "pretrained":
        return load_encoder(shape.path, encoder_settings, shape.layers)
    assert settings.rope_theta is not None, "checked with the recipe"
    if shape.architecture == "rotary":
        assert shape.max_position_embeddings is not None, "checked with the recipe"
        bert = load_backbone(shape.path, shape.layers)
        rotary = with_rotary_positions(bert, settings.rope_theta, shape.max_position_embeddings)
        return Encoder(rotary, donor.tokenizer, encoder_settings)
    backbone = warm_start.eurobert(
        shape, settings.rope_theta, start.table, start.weights, start.mapping, donor.tokenizer
    )
    return Encoder(backbone, donor.tokenizer, encoder_settings)


def _encoder_settings(settings: Distill) -> EncoderSettings:
    return EncoderSettings(settings.pooling, dict(settings.prompts), settings.max_tokens, settings.rope_theta)
