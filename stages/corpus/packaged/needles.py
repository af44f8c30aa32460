"""Questions about sentences planted in long texts: facts and pass keys, in turns, at depths that a seed decides."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from stages.corpus.packaged import planted_needles as needles
from stages.corpus.packaged.speeches import speech
from stages.corpus.sentences import stretches

Record = dict[str, Any]


def pairs(files: list[Path], stretch_words: float, seed: float) -> Iterator[Record]:
    """Pairs of question -> stretch of a speech with the answer in it; the entity is the speech.

    The speech is the entity, so what is hidden in one split's speeches is never sought in another's.
    """
    for path in files:
        yield from planted(path.stem, speech(path), int(stretch_words), int(seed))


def planted(name: str, sentences: Sequence[str], stretch_words: int, seed: int) -> Iterator[Record]:
    """The same for the sentences of any text: its name is the entity, and decides with the seed what is hidden."""
    for number, stretch in enumerate(stretches(sentences, stretch_words)):
        key = f"{seed}/{name}/{number}"
        needle = needles.passkey(key) if number % 2 else needles.fact(key, needles.FACTS)
        yield {"entity": name, "query": needle.query, "document": needles.plant(stretch, needle, needles.depth(key))}
