"""A model behind an OpenAI-compatible `/v1/embeddings` as teacher, through OpenAI's own client.

The client waits as long as a server asks it to (Retry-After) and tries again where that can help: after 408, 409, 429,
5xx and lost connections. The key comes from the environment and goes to the client alone.

Shapes: N texts, T teacher dimension.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from stages.teachers.endpoint_probe import same_probe
from stages.teachers.fingerprint import identified
from stages.teachers.vector_store import Identity, Reading

# What every model is asked, to tell it from the others that its name may stand for some day.
PROBE = "The still house stands beside the river, and its copper kettles are older than the bridge."


@dataclass
class EndpointTeacher:
    """A model by name at an address; it cuts texts that are too long for it itself.

    Args:
        url: up to and with `/v1`.
        key_variable: name of the environment variable that holds the key; None where none is needed.
        batch_size: texts of a request.
        parallel: requests under way at once.
        max_retries: of a request, with growing pauses or those that the server asks for.
        timeout: seconds that a request may take.
        probes: folder of what models answered to the probe before.
    """

    url: str
    model: str
    key_variable: str | None
    batch_size: int
    parallel: int
    max_retries: int
    timeout: float
    probes: Path

    @cached_property
    def identity(self) -> Identity:
        """Name, dimension, and the answer to a probe: a model that changed behind its name is another teacher."""
        vector = self._request([PROBE])[0]
        return identified(
            {
                "endpoint": self.model,
                "dimensions": len(vector),
                "probe": same_probe(self.probes, self.model, vector),
                "normalised": True,
                "dtype": "float16",
            }
        )

    def embed(self, texts: Sequence[str], reading: Reading) -> np.ndarray:
        """Unit vectors [N, T] float32 of texts.

        Raises:
            ValueError: the server refused, or answered with something else than a vector for each text.
        """
        asked = [reading.instruction + text for text in texts]
        batches = [asked[start : start + self.batch_size] for start in range(0, len(asked), self.batch_size)]
        with ThreadPoolExecutor(self.parallel) as pool:
            vectors = list(pool.map(self._request, batches))
        if len(dimensions := {part.shape[1] for part in vectors}) > 1:
            raise ValueError(f"{self.url}, model {self.model}: got vectors of {sorted(dimensions)} dimensions in turns")
        return np.concatenate(vectors)

    def token_counts(self, texts: Sequence[str], instruction: str) -> None:
        """None: its tokens are not known."""

    def _request(self, texts: list[str]) -> np.ndarray:
        """Unit vectors [N, T] float32 of some texts, in one request."""
        openai, client = _library(), self._client
        try:
            answer = client.embeddings.create(model=self.model, input=texts, encoding_format="float")
        except openai.OpenAIError as error:
            # A server may repeat the key that it refuses.
            said = str(error).replace(self._key, "***")
            raise ValueError(f"{self.url}, model {self.model}: no embeddings: {said}") from None
        found = sorted((one.index, one.embedding) for one in answer.data or [])
        if [index for index, _ in found] != list(range(len(texts))):
            raise ValueError(
                f"{self.url}, model {self.model}: got vectors number {[index for index, _ in found][:5]}..., expected "
                f"0 to {len(texts) - 1}, one for each text"
            )
        if len({len(vector) for _, vector in found}) != 1:
            raise ValueError(f"{self.url}, model {self.model}: got vectors of several dimensions in one answer")
        vectors = np.array([vector for _, vector in found], dtype=np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (np.isfinite(lengths).all() and lengths.all()):
            raise ValueError(f"{self.url}, model {self.model}: got a vector without direction (zero or not finite)")
        return vectors / lengths

    @cached_property
    def _client(self) -> Any:
        return _library().OpenAI(
            base_url=self.url, api_key=self._key, max_retries=self.max_retries, timeout=self.timeout
        )

    @property
    def _key(self) -> str:
        if self.key_variable is None:
            return "none"  # which the client wants and such a server does not read
        if not (key := os.environ.get(self.key_variable)):
            raise ValueError(f"embed.teacher.key_variable: {self.key_variable} is not set; export it with the key")
        return key


def _library() -> Any:
    try:
        import openai
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "embed.teacher: an endpoint needs OpenAI's client, which is not installed; pip install 'openai~=3.57'"
        ) from error
    return openai
