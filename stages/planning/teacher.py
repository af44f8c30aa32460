"""The embed stage in a plan: the teacher reads each distinct text once a way of reading it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from stages.modeling.flops import Shape
from stages.planning.corpus import Corpus
from stages.planning.steps import Totals, embedding
from stages.planning.texts import in_windows
from stages.recipe.embed import Embed
from stages.teachers.teacher import ReadingRule, reading_rule
from stages.teachers.teacher_inputs import TeacherInput


@dataclass(frozen=True)
class Teacher:
    """The model that embeds, and how.

    Args:
        name: as `TokenCounts` knows it.
        narrowed: its pooling reads one position.
    """

    name: str
    shape: Shape
    narrowed: bool
    packing: bool
    batch_tokens: int

    def work(self, corpus: Corpus, embed: Embed, inputs: Iterable[TeacherInput]) -> Totals:
        """Embedding the inputs: distinct texts, and the tokens of all their windows."""
        total = Totals()
        for scale, texts, lengths in self._reads(corpus, embed, inputs):
            read = embedding(self.shape, lengths, self.batch_tokens, narrowed=self.narrowed, packing=self.packing)
            total += Totals(texts, read.tokens, read.flops, read.computed) * scale
        return total

    def _reads(
        self, corpus: Corpus, embed: Embed, inputs: Iterable[TeacherInput]
    ) -> Iterator[tuple[float, int, np.ndarray]]:
        """By source and way of reading: rows that stand behind one, new distinct texts, tokens of each window."""
        seen: dict[ReadingRule, set[str]] = {}
        for one in inputs:
            for name in one.sources:
                source, reading = corpus.sources[name], reading_rule(embed, one.side, name)
                known = seen.setdefault(reading, set())
                texts = dict.fromkeys(text for of_split in source.columns[one.column].values() for text in of_split)
                new = [text for text in texts if text not in known]
                known.update(new)
                yield source.scale, len(new), self._lengths(corpus, new, source.tokens, reading)

    def _lengths(self, corpus: Corpus, texts: list[str], given: int | None, reading: ReadingRule) -> np.ndarray:
        """Tokens of each text, or of each window that it is read in."""
        prompt, windowed = reading.instruction, reading.window_tokens < reading.max_tokens
        around = int(corpus.counts.lengths(self.name, [""], None, prompt, reading.max_tokens)[0]) if windowed else 0
        lengths = corpus.counts.lengths(self.name, texts, given, prompt, reading.max_tokens + around)
        return in_windows(lengths, reading.window_tokens, around) if windowed else lengths
