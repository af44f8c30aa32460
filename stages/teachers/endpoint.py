"""A model behind an OpenAI-compatible `/v1/embeddings` as teacher.

Shapes: N texts, T teacher dimension.
"""

import base64
import hashlib
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from stages.corpus.openai_client import failure, openai_client, openai_library, refusal, server_key
from stages.recipe.embed import Endpoint
from stages.teachers.fingerprint import Fingerprint, with_digest
from stages.teachers.teacher import ReadingRule

# Every model embeds this text, so that another model behind the same name is noticed. Servers compute a vector a little
# differently each time, so answers are compared by cosine, not by their bytes.
PROBE = "The still house stands beside the river, and its copper kettles are older than the bridge."
# Rounding and batching leave the answers of one model above this cosine; other models, and other versions of the same
# model, are far below.
SAME_COSINE = 0.999
# How servers refuse a request for the number or the length of its texts: vLLM and Ollama with 400, Text Embeddings
# Inference with 413 or 422. llama.cpp answers 500, which a broken server does too, so that one is told by its words.
REFUSED_SIZE = (400, 413, 422)
LLAMA_CPP = "too large to process"
# Share of a text's characters that is kept when it is cut.
KEPT_SHARE = 0.75


@dataclass
class EndpointTeacher:
    """A model by its name at an address.

    A batch that the server refuses for its size is halved until it is taken. A text that is refused alone is cut, where
    the recipe says so.

    Args:
        probes: folder of earlier answers to the probe.
    """

    endpoint: Endpoint
    probes: Path

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Name, dimension, and answer to the probe: a model that changed behind its name is another teacher."""
        try:
            vector = self._request([PROBE])[0]
        except openai_library().OpenAIError as error:
            raise self._unanswered(error) from None
        body = json.dumps(self.endpoint.extra_body, sort_keys=True)
        return with_digest(
            {
                "endpoint": self.endpoint.model,
                "dimensions": len(vector),
                "probe": first_same_answer(self.probes, self.endpoint.model, vector),
                "normalised": True,
                "dtype": "float16",
                **({"extra_body": body} if self.endpoint.extra_body else {}),
            }
        )

    def embed(self, texts: Sequence[str], rule: ReadingRule) -> np.ndarray:
        """Embed texts; returns unit vectors [N, T] float32.

        Raises:
            ConnectionError: the server is out of reach, or too busy.
            ValueError: the server refused, or its answer does not hold one vector for each text.
        """
        inputs, size = [rule.instruction + text for text in texts], self.endpoint.batch_size
        batches = [inputs[start : start + size] for start in range(0, len(inputs), size)]
        with ThreadPoolExecutor(self.endpoint.parallel) as pool:
            parts = [part for parts in pool.map(self._embed_batch, batches) for part in parts]
        if len(dimensions := {vectors.shape[1] for vectors, _ in parts}) > 1:
            raise ValueError(f"{self._name}: got vectors of {sorted(dimensions)} dimensions in turns")
        if num_cut := sum(is_cut for _, is_cut in parts):
            print(f"{self._name}: {num_cut} of {len(texts)} texts were too long for it and cut", file=sys.stderr)
        return np.concatenate([vectors for vectors, _ in parts])

    def token_counts(self, texts: Sequence[str], instruction: str) -> None:
        """Return None: a server does not tell its tokens."""

    def _embed_batch(self, texts: list[str], is_cut: bool = False) -> list[tuple[np.ndarray, bool]]:
        """Embed some texts; returns unit vectors [n, T] of each request, and whether its text was cut."""
        openai = openai_library()
        try:
            return [(self._request(texts), is_cut)]
        except openai.APIStatusError as error:
            is_size = _refuses_size(error)
            if is_size and (half := len(texts) // 2):
                return self._embed_batch(texts[:half]) + self._embed_batch(texts[half:])
            shorter = texts[0][: int(len(texts[0]) * KEPT_SHARE)]
            if not is_size or self.endpoint.too_long == "stop" or len(shorter) < len(PROBE):
                raise self._unanswered(error, texts) from None
            return self._embed_batch([shorter], is_cut=True)
        except openai.OpenAIError as error:
            raise self._unanswered(error, texts) from None

    def _request(self, texts: list[str]) -> np.ndarray:
        """Embed some texts with one request; returns unit vectors [N, T] float32."""
        endpoint = self.endpoint
        answer = self._client.embeddings.create(
            model=endpoint.model, input=texts, encoding_format="float", extra_body=endpoint.extra_body
        )
        try:
            return unit_vectors(answer, len(texts))
        except ValueError as error:
            raise ValueError(f"{self._name}: {error}") from None

    def _unanswered(self, error: Exception, texts: Sequence[str] = (PROBE,)) -> Exception:
        message = f"{self._name}: no embeddings: {refusal(error, self.endpoint.url, self._key)}"
        if texts != (PROBE,):
            which = "the text" if len(texts) == 1 else f"{len(texts)} texts, first one"
            message += f"; asked for {which} of {len(texts[0])} characters that begins {texts[0][:60]!r}"
            if len(texts) == 1 and _refuses_size(error):
                message += "; shorten it at its source, set embed.teacher.too_long to cut, or let the server cut "
                message += "(embed.teacher.extra_body)"
            message += "; the vectors so far are kept"
        return ValueError(message) if _refuses_size(error) else failure(message, error)

    @property
    def _name(self) -> str:
        return f"{self.endpoint.url}, model {self.endpoint.model}"

    @cached_property
    def _client(self) -> Any:
        return openai_client(self.endpoint.url, self._key, self.endpoint.max_retries, self.endpoint.timeout)

    @property
    def _key(self) -> str:
        return server_key(self.endpoint.key_variable, "embed.teacher.key_variable")


def _refuses_size(error: Exception) -> bool:
    return getattr(error, "status_code", None) in REFUSED_SIZE or LLAMA_CPP in str(error)


def unit_vectors(answer: Any, num_texts: int) -> np.ndarray:
    """Read unit vectors [N, T] float32 in the order of the texts from a server's answer.

    Raises:
        ValueError: it does not hold one vector with a direction for each of `num_texts` texts.
    """
    data = getattr(answer, "data", None)
    if not isinstance(data, list):  # A web page, or an error with the status of a success.
        raise ValueError(
            f"got {' '.join(str(answer).split())[:80]!r} instead of vectors; give the address of an OpenAI-compatible "
            "server, up to and with /v1"
        )
    numbers = sorted((item.index for item in data), key=str)
    if len(data) != num_texts or set(numbers) != set(range(num_texts)):
        raise ValueError(f"got vectors number {numbers[:5]}..., expected 0 to {num_texts - 1}, one for each text")
    lists = [_numbers(item.embedding) for item in sorted(data, key=lambda item: item.index)]
    if (shape := lists[0].shape) != (lists[0].size,):
        raise ValueError(
            f"got an array of shape {list(shape)} for a text, as of a vector per token, expected one vector; let the "
            "server pool (llama.cpp: --pooling), or take another model"
        )
    if len({one.shape for one in lists}) != 1 or not shape[0]:
        raise ValueError("got vectors of several dimensions in one answer, or empty ones")
    vectors = np.stack(lists)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (np.isfinite(lengths).all() and lengths.all()):
        raise ValueError("got a vector without direction (zero or not finite)")
    return vectors / lengths


def _numbers(embedding: Any) -> np.ndarray:
    """Read an array of float32 from lists of numbers, or from the base64 that some servers give unasked."""
    try:
        if isinstance(embedding, str):
            return np.frombuffer(base64.b64decode(embedding, validate=True), dtype="<f4")
        return np.array(embedding, dtype=np.float32)
    except (TypeError, ValueError):
        raise ValueError(
            f"got {str(embedding)[:40]!r}... as the vector of a text, expected a list of numbers; give the address of "
            "an OpenAI-compatible server"
        ) from None


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
