"""Questions about sentences planted in long speeches: facts and pass keys, in turns, at depths that a seed decides."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.corpus import needles
from stages.corpus.readers.speeches import speech
from stages.corpus.sentences import stretches

Record = dict[str, Any]


def pairs(files: list[Path], stretch_words: float, seed: float) -> Iterator[Record]:
    """Pairs of question -> stretch of a speech with the answer in it; the entity is the speech.

    The speech is the entity, so what is hidden in one split's speeches is never sought in another's.
    """
    for path in files:
        for number, stretch in enumerate(stretches(speech(path), int(stretch_words))):
            key = f"{int(seed)}/{path.stem}/{number}"
            planted = needles.passkey(key) if number % 2 else needles.fact(key, needles.FACTS)
            document = needles.plant(stretch, planted, needles.depth(key))
            yield {"entity": path.stem, "query": planted.query, "document": document}
