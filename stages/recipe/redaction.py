"""Keep secrets out of logs, artifacts, tags and error messages, of stages as of flows."""

import os
import re
from collections.abc import Mapping

_SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|AUTH_STRING|CONNECTION_URL)$")
_ADDRESS = re.compile(r"://[^/\s@]+@")
# Shorter values could be ordinary words of a log.
_LEAST_LENGTH = 6


def redacted(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Replace users and passwords in addresses, and values of variables that are named like secrets, by stars."""
    for name, value in environment.items():
        if len(value) >= _LEAST_LENGTH and _SECRET.search(name.upper()) and value in text:
            text = text.replace(value, "***")
    return _ADDRESS.sub("://***@", text)
