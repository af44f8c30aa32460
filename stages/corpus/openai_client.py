"""Servers that speak OpenAI's protocol (vLLM, Ollama, llama.cpp, hosted ones), through OpenAI's own client.

The client waits as long as a server asks for (Retry-After, up to two minutes) and sends a request again where that can
help: after 408, 409, 429, 5xx and lost connections. The key comes from the environment and goes to the client alone. A
server on this machine is never asked through a proxy.
"""

import ipaddress
import os
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass


def openai_library() -> Any:
    """Import OpenAI's client, which is an optional extra."""
    try:
        import openai
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "a server is asked through OpenAI's client, which is not installed; pip install 'openai~=3.57'"
        ) from error
    return openai


def openai_client(url: str, key: str, max_retries: int, timeout: float) -> Any:
    """Return a client of the server at `url`, which goes around the environment's proxies for a server on loopback.

    Raises:
        ValueError: the environment's proxies cannot be used.
    """
    openai, is_near = openai_library(), _is_loopback(urlsplit(url).hostname or "")
    try:
        http = openai.DefaultHttpxClient(trust_env=not is_near)
    except Exception as error:  # SOCKS without its package, an address that cannot be read: each a class of its own.
        raise ValueError(
            f"{url}: the environment's proxies cannot be used ({error}); correct HTTP_PROXY, HTTPS_PROXY, ALL_PROXY "
            "and NO_PROXY"
        ) from None
    return openai.OpenAI(base_url=url, api_key=key, max_retries=max_retries, timeout=timeout, http_client=http)


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def server_key(variable: str | None, setting: str) -> str:
    """Read a server's key from the environment variable that a setting names.

    Raises:
        ValueError: the variable is not set, or holds what no header takes.
    """
    if variable is None:
        return "none"  # The client requires a key; such a server does not read it.
    key = os.environ.get(variable, "").strip()  # Files of secrets often end with a line break.
    if not key:
        raise ValueError(f"{setting}: {variable} is not set; export it with the key")
    if not (key.isascii() and key.isprintable()):
        raise ValueError(f"{setting}: {variable} holds characters that no key has; export the key alone")
    return key


def failure(message: str, error: Exception) -> Exception:
    """Return what is raised for a client's error: of a class that the flow tries again where the fault may pass.

    The client's own error is not raised, since it may hold the key.
    """
    openai = openai_library()
    may_pass = (openai.APIConnectionError, openai.InternalServerError, openai.RateLimitError)
    return ConnectionError(message) if isinstance(error, may_pass) else ValueError(message)


def refusal(error: Exception, url: str, key: str) -> str:
    """Say why a server at `url` did not answer, and what helps; without the key, which a server may repeat."""
    message = str(error)
    if (response := getattr(error, "response", None)) is not None:
        if wait := response.headers.get("Retry-After"):
            message += f"; it asks to be left alone until then (Retry-After: {wait}): run again later"
    elif error.__cause__ is not None:
        message += f" ({error.__cause__}); start the server, correct its address, or give it more time"
        if proxy := _proxy_of(url):
            message += (
                f"; it was asked through the proxy {proxy}: add {urlsplit(url).hostname} to NO_PROXY if it needs none"
            )
    return message.replace(key, "***")


def _proxy_of(url: str) -> str | None:
    """Return the proxy of the environment through which a server is asked, without its password."""
    parts = urlsplit(url)
    host, proxies = parts.hostname or "", getproxies()
    if _is_loopback(host) or proxy_bypass(host):
        return None
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return proxy and proxy.replace(f"{urlsplit(proxy).netloc.rpartition('@')[0]}@", "")
