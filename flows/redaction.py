"""Secrets stay out of what a rebuild shows: logs, artifacts, messages of failures."""

import os
import re
from collections.abc import Mapping

_SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|AUTH_STRING|CONNECTION_URL)$")
_ADDRESS = re.compile(r"://[^/\s@]+@")
# Shorter values are words that a log needs.
_LEAST_LENGTH = 6


def redacted(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """The text with stars for users and passwords in addresses and for values of variables named like secrets."""
    for name, value in environment.items():
        if len(value) >= _LEAST_LENGTH and _SECRET.search(name.upper()) and value in text:
            text = text.replace(value, "***")
    return _ADDRESS.sub("://***@", text)
