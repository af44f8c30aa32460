"""The fingerprint of a model: the fields that decide the bytes of its vectors, and a digest over them."""

import hashlib
import json
from collections.abc import Mapping

from stages.corpus.locations import files_digest, local_folder

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
