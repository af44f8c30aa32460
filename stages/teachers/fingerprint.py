"""The fingerprint of a model: the fields that decide the bytes of its vectors, and a digest over them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import snapshot_download

from stages.corpus.locations import files_digest, resolve

Fingerprint = Mapping[str, str | int | bool]

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def teacher_fingerprint(location: str, pooling: str, precision: str) -> Fingerprint:
    """Digest a teacher's weights and tokenizer together with its pooling and the precision of its forward pass.

    Its vectors are stored as float16, whatever the precision.
    """
    folder = local_folder(location)
    weights = sorted(folder.glob("*.safetensors"))
    tokenizer = [folder / name for name in _TOKENIZER_FILES if (folder / name).exists()]
    return with_digest(
        {
            "weights": files_digest([folder / "config.json", *weights]),
            "tokenizer": files_digest(tokenizer),
            "pooling": pooling,
            "normalised": True,
            "precision": precision,
            "dtype": "float16",
        }
    )


def with_digest(fields: Fingerprint) -> Fingerprint:
    """Add a `digest` over all fields."""
    digest = hashlib.sha256(json.dumps(dict(fields), sort_keys=True).encode()).hexdigest()[:16]
    return {**fields, "digest": digest}


def local_folder(location: str) -> Path:
    """Return the folder that holds a model's files: `location` itself, or the local copy of a model on the hub.

    Raises:
        FileNotFoundError: `location` is neither a folder nor a model that the hub gives.
    """
    folder = Path(resolve(location))
    if folder.is_dir():
        return folder
    try:
        return Path(snapshot_download(location, allow_patterns=["*.json", "*.txt", "*.model", "*.safetensors"]))
    except Exception as error:  # The hub's client raises a different class for each reason.
        raise FileNotFoundError(f"model {location!r}: neither a folder nor a model within the hub's reach") from error
