"""The address of the MLflow store."""

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from stages.recipe.paths import MLFLOW, store_address


def tracking_uri() -> str:
    """Return the address of the MLflow store: MLFLOW_TRACKING_URI, else mlflow.db in the working folder.

    A user and password in an http address move to the variables that MLflow reads them from, so that no message, tag or
    log line can show them.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or store_address(Path.cwd() / MLFLOW)
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https") and "@" in parts.netloc:
        credentials, _, host = parts.netloc.rpartition("@")
        user, _, password = credentials.partition(":")
        os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(user)
        os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(password)
        uri = urlunsplit(parts._replace(netloc=host))
        os.environ["MLFLOW_TRACKING_URI"] = uri
    return uri
