"""Students to measure with, on both sides: ours and the same weights as a Sentence Transformers model.

Weights decide no speed, so they are random; shapes are those of recipes.
"""

from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from transformers import EuroBertConfig, EuroBertModel, PreTrainedModel

from stages.modeling.backbones import load_backbone
from stages.modeling.encoder import Encoder, EncoderSettings
from stages.modeling.rotary import with_rotary_positions
from stages.modeling.tokenization import load_tokenizer
from stages.release.merged import save_sentence_transformer
from tests.benchmarks.texts import TEACHER

PROMPTS = {"query": "Query: ", "document": "Document: "}
MAX_TOKENS = 96


def eurobert(teacher: str = TEACHER, **shape: int) -> Encoder:
    """The paper's architecture, last-token pooling, two layers small."""
    tokenizer = load_tokenizer(teacher)
    sizes = {
        "hidden_size": 384,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "intermediate_size": 1024,
        "max_position_embeddings": 2048,
        "vocab_size": len(tokenizer),
    }
    config = EuroBertConfig(
        **sizes | shape,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
        mask_token_id=tokenizer.sep_token_id,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
    )
    torch.manual_seed(17)
    return _student(EuroBertModel(config), EncoderSettings("last", PROMPTS, MAX_TOKENS), tokenizer)


def rotary(teacher: str = TEACHER, layers: tuple[int, ...] = (0, 5)) -> Encoder:
    """The default recipe's: layers of the teacher under rotary positions, mean pooling."""
    backbone = with_rotary_positions(load_backbone(teacher, layers), 10_000.0, 4096)
    return _student(backbone, EncoderSettings("mean", PROMPTS, MAX_TOKENS), load_tokenizer(teacher))


def _student(backbone: PreTrainedModel, settings: EncoderSettings, tokenizer: Any) -> Encoder:
    backbone.get_input_embeddings().requires_grad_(False)  # as the recipes freeze them
    return Encoder(backbone, tokenizer, settings)


def as_peer(encoder: Encoder, folder: Path) -> SentenceTransformer:
    """The same weights and prompts as Sentence Transformers loads them, the same of them frozen."""
    save_sentence_transformer(encoder, PROMPTS, folder)
    peer = SentenceTransformer(str(folder), device="cpu")
    peer[0].auto_model.get_input_embeddings().requires_grad_(False)
    return peer.train()


def gradients_apart(ours: Encoder, peer: SentenceTransformer) -> float:
    """Length of the difference of the gradients of both backbones, as a share of theirs."""
    theirs = {name: one.grad for name, one in peer[0].auto_model.named_parameters() if one.grad is not None}
    mine = {name: one.grad for name, one in ours.backbone.named_parameters() if one.grad is not None}
    assert mine.keys() == theirs.keys(), sorted(mine.keys() ^ theirs.keys())
    one, other = (torch.cat([side[name].flatten() for name in theirs]) for side in (mine, theirs))
    return float((one - other).norm() / other.norm())
