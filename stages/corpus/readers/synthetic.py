"""Reader of questions that a language model writes about the sections of documents.

An answer is kept under .stillhouse/questions, so that the model is asked about a section once: a rebuild asks nothing
and reads the same rows, and a killed build goes on where it stopped.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Self

import xxhash
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stages.corpus.normalisation import folded, normalise
from stages.corpus.openai_client import failure, openai_client, openai_library, refusal, server_key
from stages.corpus.readers.documents import sections
from stages.corpus.records import MODEL, Record, Row, Unreadable
from stages.recipe.fields import Count, NotNegative, Positive
from stages.recipe.paths import QUESTIONS

_FENCE = re.compile(r"\A\s*```\w*\s*\n(.*?)\n?```\s*\Z", re.DOTALL)
# Codes by which a server refuses a single text (OpenAI's, Azure's, vLLM's) while it would answer about others.
_OF_THE_TEXT = ("content_filter", "content_policy_violation", "context_length_exceeded")


class QuestionWriter(BaseModel):
    """A model behind `/v1/chat/completions`, and how it is asked: the options of a source.

    Attributes
    ----------
    question, keywords, statement
        Prompts of the three kinds of questions, at least one; `{text}` stands for the section, and the answer has to be
        a JSON list of questions. Kinds that have a prompt take turns, by a hash of the section.
    key_variable
        Environment variable with the server's key; none for a server that needs no key.
    parallel
        Requests under way at once.
    max_words, min_words
        Words of a section, as for `documents.sections`.
    prompt_price, answer_price
        Price of a million tokens, for `stillhouse plan`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    url: Annotated[str, Field(pattern=r"^https?://[^@\s]+$")]
    model: str
    question: str | None = None
    keywords: str | None = None
    statement: str | None = None
    temperature: NotNegative = 0.0
    max_answer_tokens: Count = 512
    seed: int = 17
    key_variable: str | None = None
    parallel: Count = 4
    max_retries: Annotated[int, Field(ge=0)] = 8
    timeout: Positive = 120.0
    max_words: Count = 150
    min_words: Count = 12
    prompt_price: NotNegative | None = None
    answer_price: NotNegative | None = None

    @property
    def prompts(self) -> list[str]:
        """The prompts of the kinds that have one."""
        return [prompt for prompt in (self.question, self.keywords, self.statement) if prompt is not None]

    @model_validator(mode="after")
    def _check_prompts(self) -> Self:
        if not self.prompts or not all("{text}" in prompt for prompt in self.prompts):
            raise ValueError(
                "expected a prompt as option question, keywords or statement, each with the mark {text} where the "
                "section goes"
            )
        return self

    def request(self, text: str) -> dict[str, Any]:
        """Return what the server is asked about a section."""
        prompt = self.prompts[xxhash.xxh3_64_intdigest(text.encode()) % len(self.prompts)]
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt.replace("{text}", text)}],
            "temperature": self.temperature,
            "max_tokens": self.max_answer_tokens,
            "seed": self.seed,
        }

    def answer(self, text: str) -> str:
        """Return the model's answer about a section, which is kept.

        Raises:
            ConnectionError: the server cannot be reached, or is too busy.
            ValueError: it refuses.
        """
        request = self.request(text)
        file = kept_answer(request)
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
            reason = refusal(error, self.url, self._key)
            if getattr(error, "code", None) in _OF_THE_TEXT:
                return reason
            raise failure(
                f"{self.url}, model {self.model}: no questions: {reason}; the answers so far are kept, so run again "
                "when the server answers",
                error,
            ) from None
        message = done.choices[0].message if done.choices else None
        return (message and (message.content or message.refusal)) or ""

    @cached_property
    def _client(self) -> Any:
        return openai_client(self.url, self._key, self.max_retries, self.timeout)

    @property
    def _key(self) -> str:
        return server_key(self.key_variable, "options.key_variable")


def kept_answer(request: Mapping[str, Any]) -> Path:
    """Return the file that holds the answer to a request, once it was given."""
    name = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
    return QUESTIONS / name[:2] / f"{name}.json"


def question_writer(options: Mapping[str, float | str]) -> QuestionWriter:
    """Check the options of a source.

    Raises:
        ValueError: one is missing, unknown or out of range; the message has them all.
    """
    try:
        return QuestionWriter.model_validate(options)
    except ValidationError as error:
        faults = [(*fault["loc"], fault["msg"].removeprefix("Value error, ")) for fault in error.errors()]
        raise ValueError("options: " + "; ".join(": ".join(map(str, fault)) for fault in faults)) from error


def queries(files: Sequence[Path], **options: float | str) -> Iterator[Record]:
    """Yield pairs of a question that the model wrote -> the section that it is about; a file is one entity.

    A section is in one pair, since two pairs of one document are false negatives of each other: of several questions
    the first that does not stand in the section word for word. An answer without such a question is a rejected row.

    Args:
        files: documents, as for `documents.sections`.
        options: those of `QuestionWriter`.

    Raises:
        ValueError: the options are wrong, or the server does not answer.
    """
    writer = question_writer(options)
    return _pairs(writer, sections(files, writer.max_words, writer.min_words))


def _pairs(writer: QuestionWriter, records: Iterator[Record]) -> Iterator[Record]:
    """Ask about the sections, several at once, and yield their pairs in the order of the sections."""
    with ThreadPoolExecutor(writer.parallel) as pool:
        while block := list(islice(records, 8 * writer.parallel)):
            texts = [record["text"] for record in block if not isinstance(record, Unreadable)]
            answers = pool.map(writer.answer, texts)
            for record in block:
                yield record if isinstance(record, Unreadable) else _pair(record, next(answers))


def _pair(section: Row, answer: str) -> Record:
    questions = [" ".join(question.split()) for question in _parsed(answer)]
    if not questions:
        return Unreadable("the model gave no JSON list of questions", answer or section["text"])
    words = _words(section["text"])
    for question in questions:
        if _words(question) not in words:
            return {"entity": section["entity"], "query": question, "document": section["text"], "origin": MODEL}
    return Unreadable("the question is a copy of the text", questions[0])


def _words(text: str) -> str:
    """Return the words of a text, whatever its capitals and punctuation."""
    return " ".join(re.findall(r"\w+", folded(normalise(text))))


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
