"""The fingerprint of a model: the fields that decide the bytes of its vectors, and a digest over them."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from stages.corpus.locations import MODEL_FILES, files_digest, local_folder

Fingerprint = Mapping[str, str | int | bool]

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
# What Sentence Transformers reads, and transformers does not.
_OTHER_FORMAT = re.compile(
    r"modules\.json|config_sentence_transformers\.json|data_config\.json|sentence_\w+_config\.json"
)


def teacher_fingerprint(location: str, pooling: str, precision: str) -> Fingerprint:
    """Digest every file that loading a teacher reads, together with its pooling and the precision of its forward pass.

    Its vectors are stored as float16, whatever the precision.
    """
    folder = local_folder(location)
    weights = sorted(folder.glob("*.safetensors"))
    tokenizer = [folder / name for name in _TOKENIZER_FILES if (folder / name).exists()]
    known = {folder / "config.json", *weights, *tokenizer}
    others = [path for path in model_files(folder.glob("*")) if path not in known]
    others = [path for path in others if not _OTHER_FORMAT.fullmatch(path.name)]
    return with_digest(
        {
            "weights": files_digest([folder / "config.json", *weights]),
            "tokenizer": files_digest(tokenizer),
            **({"others": named_digest(folder, others)} if others else {}),
            "pooling": pooling,
            "normalised": True,
            "precision": precision,
            "dtype": "float16",
        }
    )


def model_files(paths: Iterable[Path]) -> list[Path]:
    """Return the files that loading a model may read, sorted."""
    return sorted(path for path in paths if path.suffix in MODEL_FILES and path.is_file())


def named_digest(folder: Path, files: Iterable[Path]) -> str:
    """Digest the names of files inside a folder together with their contents."""
    digests = {path.relative_to(folder).as_posix(): files_digest([path]) for path in files}
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def with_digest(fields: Fingerprint) -> Fingerprint:
    """Add a `digest` over all fields."""
    digest = hashlib.sha256(json.dumps(dict(fields), sort_keys=True).encode()).hexdigest()[:16]
    return {**fields, "digest": digest}
