"""What a teacher is, as plain data: the fields that decide a vector's bytes."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import snapshot_download

from stages.corpus.locations import files_digest, resolve

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def teacher_identity(location: str, pooling: str, precision: str) -> dict[str, str | int | bool]:
    """Digests of a teacher's weights and tokenizer, pooling, normalisation, precisions, and one digest over all.

    Args:
        precision: of its forward pass; its vectors are stored as float16.
    """
    folder = local_folder(location)
    weights = sorted(folder.glob("*.safetensors"))
    tokenizer = [folder / name for name in _TOKENIZER_FILES if (folder / name).exists()]
    identity: dict[str, str | int | bool] = {
        "weights": files_digest([folder / "config.json", *weights]),
        "tokenizer": files_digest(tokenizer),
        "pooling": pooling,
        "normalised": True,
        "precision": precision,
        "dtype": "float16",
    }
    return identified(identity)


def identified(fields: Mapping[str, str | int | bool]) -> dict[str, str | int | bool]:
    """The fields that tell a teacher from others, and one digest over all."""
    digest = hashlib.sha256(json.dumps(dict(fields), sort_keys=True).encode()).hexdigest()[:16]
    return {**fields, "digest": digest}


def local_folder(location: str) -> Path:
    """Folder with the files of a model: itself, or the hub's local copy.

    Raises:
        FileNotFoundError: neither a folder nor a model within the hub's reach.
    """
    folder = Path(resolve(location))
    if folder.is_dir():
        return folder
    try:
        return Path(snapshot_download(location, allow_patterns=["*.json", "*.txt", "*.model", "*.safetensors"]))
    except Exception as error:  # the hub client raises a different class for each way of not finding a model
        raise FileNotFoundError(f"model {location!r}: neither a folder nor a model within the hub's reach") from error
