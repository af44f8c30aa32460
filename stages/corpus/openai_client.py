"""Servers that speak OpenAI's protocol (vLLM, Ollama, llama.cpp, hosted ones), through OpenAI's own client.

The client waits as long as a server asks for (Retry-After) and sends a request again where that can help: after 408,
409, 429, 5xx and lost connections. The key comes from the environment and goes to the client alone.
"""

import os
from typing import Any


def openai_library() -> Any:
    """Import OpenAI's client, which is an optional extra."""
    try:
        import openai
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "a server is asked through OpenAI's client, which is not installed; pip install 'openai~=3.57'"
        ) from error
    return openai


def server_key(variable: str | None, setting: str) -> str:
    """Read a server's key from the environment variable that a setting names.

    Raises:
        ValueError: the variable is not set.
    """
    if variable is None:
        return "none"  # The client requires a key; such a server does not read it.
    if not (key := os.environ.get(variable)):
        raise ValueError(f"{setting}: {variable} is not set; export it with the key")
    return key


def refusal(error: Exception, key: str) -> str:
    """Return an error's message without the key, which a server may repeat when it refuses it."""
    return str(error).replace(key, "***")
