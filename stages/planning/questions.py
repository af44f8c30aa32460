"""What a build still asks of language models: the sections about which sources of made questions have no answer yet."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.corpus.readers.documents import sections
from stages.corpus.readers.synthetic import kept_answer, question_writer
from stages.corpus.records import Unreadable
from stages.corpus.sources import source_files
from stages.modeling.truncation import whole_lengths
from stages.recipe.curate import Source

READER = "synthetic.queries"


@dataclass(frozen=True)
class PlannedQuestions:
    """Requests that a source still sends.

    Attributes
    ----------
    answered
        Sections whose answer is kept.
    prompt_tokens
        Counted by the student's tokenizer; that of the language model is not known.
    answer_tokens
        At most so many: `max_answer_tokens` of every request.
    cost
        At most, in the currency of the options' prices; None without both prices.
    """

    requests: int
    answered: int
    prompt_tokens: int
    answer_tokens: int
    cost: float | None


def planned_questions(
    sources: Sequence[Source], given: Mapping[str, int], tokenizer: Callable[[], Any]
) -> dict[str, PlannedQuestions]:
    """Count what each source of made questions still asks, by its documents.

    Args:
        given: sources that are out of reach, which are left out.
        tokenizer: of the student.

    Raises:
        ValueError, FileNotFoundError: a source's options are wrong, or its documents are not there.
    """
    return {
        source.name: _planned(source, tokenizer)
        for source in sources
        if source.reader == READER and source.name not in given
    }


def _planned(source: Source, tokenizer: Callable[[], Any]) -> PlannedQuestions:
    writer, asked, answered = question_writer(source.options), [], 0
    files = [file for file in source_files(source.files, source.packages) if isinstance(file, Path)]
    for record in sections(files, writer.max_words, writer.min_words):
        if isinstance(record, Unreadable):
            continue
        request = writer.request(record["text"])
        if kept_answer(request).is_file():
            answered += 1
        else:
            asked.append(request["messages"][0]["content"])
    prompt_tokens = sum(whole_lengths(tokenizer(), asked)) if asked else 0
    answer_tokens = writer.max_answer_tokens * len(asked)
    cost = None
    if writer.prompt_price is not None and writer.answer_price is not None:
        cost = (prompt_tokens * writer.prompt_price + answer_tokens * writer.answer_price) / 1e6
    return PlannedQuestions(len(asked), answered, prompt_tokens, answer_tokens, cost)
