"""A model behind an OpenAI-compatible `/v1/embeddings` as teacher.

Shapes: N texts, T teacher dimension.
"""

import hashlib
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from stages.corpus.openai_client import openai_library, refusal, server_key
from stages.recipe.embed import Endpoint
from stages.teachers.fingerprint import Fingerprint, with_digest
from stages.teachers.teacher import ReadingRule

# Every model embeds this text, so that another model behind the same name is noticed. Servers compute a vector a little
# differently each time, so answers are compared by cosine, not by their bytes.
PROBE = "The still house stands beside the river, and its copper kettles are older than the bridge."
# Rounding and batching leave the answers of one model above this cosine; other models, and other versions of the same
# model, are far below.
SAME_COSINE = 0.999


@dataclass
class EndpointTeacher:
    """A model by its name at an address. The server cuts long texts itself.

    Args:
        probes: folder of earlier answers to the probe.
    """

    endpoint: Endpoint
    probes: Path

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Name, dimension, and answer to the probe: a model that changed behind its name is another teacher."""
        vector = self._request([PROBE])[0]
        return with_digest(
            {
                "endpoint": self.endpoint.model,
                "dimensions": len(vector),
                "probe": first_same_answer(self.probes, self.endpoint.model, vector),
                "normalised": True,
                "dtype": "float16",
            }
        )

    def embed(self, texts: Sequence[str], rule: ReadingRule) -> np.ndarray:
        """Embed texts; returns unit vectors [N, T] float32.

        Raises:
            ValueError: the server refused, or its answer does not hold one vector for each text.
        """
        inputs, size = [rule.instruction + text for text in texts], self.endpoint.batch_size
        batches = [inputs[start : start + size] for start in range(0, len(inputs), size)]
        with ThreadPoolExecutor(self.endpoint.parallel) as pool:
            vectors = list(pool.map(self._request, batches))
        if len(dimensions := {part.shape[1] for part in vectors}) > 1:
            raise ValueError(f"{self._name}: got vectors of {sorted(dimensions)} dimensions in turns")
        return np.concatenate(vectors)

    def token_counts(self, texts: Sequence[str], instruction: str) -> None:
        """Return None: a server does not tell its tokens."""

    def _request(self, texts: list[str]) -> np.ndarray:
        """Embed some texts with one request; returns unit vectors [N, T] float32."""
        try:
            answer = self._client.embeddings.create(model=self.endpoint.model, input=texts, encoding_format="float")
        except openai_library().OpenAIError as error:
            raise ValueError(f"{self._name}: no embeddings: {refusal(error, self._key)}") from None
        data = sorted(answer.data or [], key=lambda item: item.index)
        if (numbers := [item.index for item in data]) != list(range(len(texts))):
            raise ValueError(
                f"{self._name}: got vectors number {numbers[:5]}..., expected 0 to {len(texts) - 1}, one for each text"
            )
        if len({len(item.embedding) for item in data}) != 1:
            raise ValueError(f"{self._name}: got vectors of several dimensions in one answer")
        vectors = np.array([item.embedding for item in data], dtype=np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (np.isfinite(lengths).all() and lengths.all()):
            raise ValueError(f"{self._name}: got a vector without direction (zero or not finite)")
        return vectors / lengths

    @property
    def _name(self) -> str:
        return f"{self.endpoint.url}, model {self.endpoint.model}"

    @cached_property
    def _client(self) -> Any:
        section = self.endpoint
        return openai_library().OpenAI(
            base_url=section.url, api_key=self._key, max_retries=section.max_retries, timeout=section.timeout
        )

    @property
    def _key(self) -> str:
        return server_key(self.endpoint.key_variable, "embed.teacher.key_variable")


def first_same_answer(folder: Path, model: str, vector: np.ndarray) -> str:
    """Name the earlier answer of a model that is the same as this one [T]; a new answer is stored and named itself."""
    answers = folder / hashlib.sha256(model.encode()).hexdigest()[:16]
    cosines = []
    for path in sorted(answers.glob("*.safetensors")):
        earlier = load_file(path)["probe"]
        cosines.append(float(earlier @ vector) if earlier.shape == vector.shape else 0.0)
        if cosines[-1] >= SAME_COSINE:
            return path.stem
    if cosines:
        print(
            f"{model} answers otherwise than before (cosine {max(cosines):.3f}): it is another model now, and texts "
            "are embedded anew",
            file=sys.stderr,
        )
    name = hashlib.sha256(vector.tobytes()).hexdigest()[:16]
    answers.mkdir(parents=True, exist_ok=True)
    partial = answers / f"{name}.partial"
    save_file({"probe": vector}, partial)
    partial.rename(answers / f"{name}.safetensors")
    return name
