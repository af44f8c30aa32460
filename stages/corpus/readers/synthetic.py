"""Reader of questions that a language model writes about the sections of documents.

An answer is kept under .stillhouse/questions, so that the model is asked about a section once: a rebuild asks nothing
and reads the same rows, and a killed build goes on where it stopped.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from stages.corpus.openai_client import openai_client, openai_library, refusal, server_key
from stages.corpus.readers.documents import sections
from stages.corpus.records import Record, Row, Unreadable
from stages.recipe.paths import QUESTIONS

_FENCE = re.compile(r"\A\s*```\w*\s*\n(.*?)\n?```\s*\Z", re.DOTALL)


@dataclass(frozen=True)
class LanguageModel:
    """A model behind `/v1/chat/completions`, and how it is asked.

    Attributes
    ----------
    prompt
        What the model is asked; `{text}` stands for the section.
    """

    url: str
    model: str
    prompt: str
    temperature: float
    max_answer_tokens: int
    seed: int
    key_variable: str | None
    max_retries: int
    timeout: float

    def answer(self, text: str) -> str:
        """Return the model's answer about a text, which is kept.

        Raises:
            ValueError: the server refuses, or cannot be reached.
        """
        request = {
            "model": self.model,
            "messages": [{"role": "user", "content": self.prompt.replace("{text}", text)}],
            "temperature": self.temperature,
            "max_tokens": self.max_answer_tokens,
            "seed": self.seed,
        }
        name = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
        file = QUESTIONS / name[:2] / f"{name}.json"
        if file.is_file():
            return str(json.loads(file.read_text(encoding="utf-8"))["answer"])
        answer = self._asked(request)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(json.dumps({"request": request, "answer": answer}, ensure_ascii=False), encoding="utf-8")
        partial.replace(file)
        return answer

    def _asked(self, request: dict[str, Any]) -> str:
        try:
            done = self._client.chat.completions.create(**request)
        except openai_library().OpenAIError as error:
            raise ValueError(
                f"{self.url}, model {self.model}: no questions: {refusal(error, self.url, self._key)}; the answers so "
                "far are kept, so run again when the server answers"
            ) from None
        return (done.choices[0].message.content if done.choices else None) or ""

    @cached_property
    def _client(self) -> Any:
        return openai_client(self.url, self._key, self.max_retries, self.timeout)

    @property
    def _key(self) -> str:
        return server_key(self.key_variable, "options.key_variable")


def queries(
    files: Sequence[Path],
    url: str,
    model: str,
    prompt: str,
    temperature: float = 0.0,
    max_answer_tokens: float = 512,
    seed: float = 17,
    key_variable: str = "",
    parallel: float = 4,
    max_retries: float = 8,
    timeout: float = 120,
    **cut: float,
) -> Iterator[Record]:
    """Yield pairs of a question that the model wrote -> the section that it is about; a file is one entity.

    A question that stands in the section word for word is rejected as a copy, and an answer that holds no questions is
    rejected as a whole.

    Args:
        files: documents, as for `documents.folder`.
        url: address of the server, up to and with `/v1`.
        prompt: what the model is asked, with `{text}` for the section; it has to ask for a JSON list of questions.
        key_variable: environment variable with the server's key; none for a server that needs no key.
        parallel: requests under way at once.
        cut: `max_words` and `min_words` of a section.

    Raises:
        ValueError: the prompt has no place for the text, or the server does not answer.
    """
    if "{text}" not in prompt:
        raise ValueError("options.prompt: expected the mark {text} where the section goes; add it")
    asked = LanguageModel(
        url=url,
        model=model,
        prompt=prompt,
        temperature=temperature,
        max_answer_tokens=int(max_answer_tokens),
        seed=int(seed),
        key_variable=key_variable or None,
        max_retries=int(max_retries),
        timeout=timeout,
    )
    return _pairs(asked, sections(files, **cut), int(parallel))


def _pairs(model: LanguageModel, records: Iterator[Record], parallel: int) -> Iterator[Record]:
    """Ask about the sections, several at once, and yield their pairs in the order of the sections."""
    with ThreadPoolExecutor(parallel) as pool:
        while block := list(islice(records, 8 * parallel)):
            texts = [record["text"] for record in block if not isinstance(record, Unreadable)]
            answers = pool.map(model.answer, texts)
            for record in block:
                if isinstance(record, Unreadable):
                    yield record
                else:
                    yield from _questions(record, next(answers))


def _questions(section: Row, answer: str) -> Iterator[Record]:
    asked = _parsed(answer)
    if not asked:
        yield Unreadable("the model gave no JSON list of questions", answer or section["text"])
        return
    plain = " ".join(section["text"].casefold().split())
    for question in asked:
        line = " ".join(question.split())
        if line.casefold().rstrip("?.! ") in plain:
            yield Unreadable("the question is a copy of the text", line)
        else:
            yield {"entity": section["entity"], "query": line, "document": section["text"]}


def _parsed(answer: str) -> list[str]:
    """Return the questions of an answer: a JSON list of texts, or of objects with a `question`, fenced or not."""
    fenced = _FENCE.match(answer)
    try:
        found = json.loads(fenced[1] if fenced else answer)
    except (ValueError, RecursionError):
        return []
    if not isinstance(found, list):
        return []
    texts = [item.get("question") if isinstance(item, dict) else item for item in found]
    return [text for text in texts if isinstance(text, str) and text.strip()]
