"""Roles of texts, and the keys that equal texts of a role share.

Queries are compared with queries and all other texts with each other, but scored pairs as wholes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import xxhash

from stages.corpus.languages import MULTIPLE
from stages.corpus.normalisation import folded

ROLES = QUERY, DOCUMENT = "query", "document"
SCORED = "scored"


def role_of(kind: str, field: str) -> str:
    """Return the role of a field in rows of a kind: `SCORED`, or one of `ROLES`."""
    return SCORED if kind == SCORED else QUERY if field == QUERY else DOCUMENT


def text_key(role: str, text: str) -> int:
    """Hash a text in a role to 64 bits, whatever its capitals and its bytes (see `folded`)."""
    return xxhash.xxh3_64_intdigest(f"{role}\0{folded(text)}".encode())


def text_keys(row: Mapping[str, Any], kind: str, fields: Sequence[str], namespace: str = "") -> list[int]:
    """Return a key for each text of a row. A scored pair has one key, either way round, as its texts may recur.

    Args:
        namespace: rows of different namespaces share no key, whatever their texts.
    """
    if kind == SCORED:
        return [text_key(f"{SCORED}{namespace}\0{sorted(folded(row[name]) for name in fields)}", "")]
    return [text_key(f"{role_of(kind, name)}{namespace}", row[name]) for name in fields]


def language_namespace(row: Mapping[str, Any], source_language: str) -> str:
    """Keep the languages of a multilingual source apart: a message may stand once in each of them."""
    return str(row["language"]) if source_language == MULTIPLE else ""
