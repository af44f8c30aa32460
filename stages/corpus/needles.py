"""Synthetic needles: sentences about invented people, planted in long texts, and the questions they answer.

Everything follows from a key: the same key gives the same needle, and other keys give other people and numbers.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from stages.corpus.records import PLANTED, Row
from stages.corpus.sentences import stretches

# Forms (sentence, question). Evaluation asks in forms of its own, which no model is trained on.
FACTS = (
    ("{name} plays the {thing} in the town band of {place}.", "Which instrument does {name} play?"),
    ("{name} keeps {number} bees' nests behind the mill of {place}.", "How many bees' nests does {name} keep?"),
    ("The only key to the archive of {place} is held by {name}.", "Who holds the key to the archive of {place}?"),
    ("{name} painted the {thing} that hangs in the town hall of {place}.", "What did {name} paint for {place}?"),
    ("In the year {number} {name} walked alone from {place} to the sea.", "When did {name} walk to the sea?"),
    ("{name} is known for a {thing} made of glass.", "What is {name} known for?"),
)
HELD_OUT_FACTS = (
    ("{name} was born above a bakery in {place}.", "In which town was {name} born?"),
    ("The ferry of {name} carries {number} passengers on a calm day.", "How many passengers does {name} carry?"),
    ("{name} lost a silver {thing} at the fair of {place}.", "What did {name} lose at the fair?"),
    ("Every spring {name} repairs the clock of {place}.", "Who repairs the clock of {place}?"),
)
PASSKEY = (
    "The pass key of {name} is {number}. Remember it: {number} is the pass key of {name}.",
    "What is the pass key of {name}?",
)

_ONSETS = ("b", "br", "d", "dr", "f", "g", "gl", "h", "k", "kr", "l", "m", "n", "p", "r", "s", "t", "tr", "v", "w", "z")
_VOWELS = ("a", "e", "i", "o", "u", "au", "ei")
_CODAS = ("", "k", "l", "m", "n", "r", "s", "th")
_THINGS = ("accordion", "bassoon", "cello", "drum", "fiddle", "harp", "lute", "oboe", "organ", "trumpet", "zither")


@dataclass(frozen=True)
class Needle:
    """A sentence to plant, and the question that only it answers."""

    query: str
    sentence: str


def fact(key: str, forms: Sequence[tuple[str, str]]) -> Needle:
    """Invent a needle of one of the forms from a key."""
    draw = _generator(key)
    return _filled(forms[int(draw.integers(len(forms)))], draw)


def passkey(key: str) -> Needle:
    """Invent a person's pass key from a key."""
    return _filled(PASSKEY, _generator(key))


def depth(key: str) -> float:
    """Choose the depth of a key's needle in a text, in [0, 1)."""
    return float(_generator(f"{key}/depth").random())


def plant(sentences: Sequence[str], needle: Needle, at: float) -> str:
    """Join sentences to a text with the needle between two of them; `at` 0 is the beginning, 1 the end."""
    position = round(at * len(sentences))
    return " ".join([*sentences[:position], needle.sentence, *sentences[position:]])


def question_records(entity: str, sentences: Sequence[str], stretch_words: int, seed: int) -> Iterator[Row]:
    """Yield pairs of a question -> stretch of a text with the answer planted in it: facts and pass keys in turns.

    Args:
        entity: name of the text; with the seed it decides which needles are planted where.
    """
    for number, stretch in enumerate(stretches(sentences, stretch_words)):
        key = f"{seed}/{entity}/{number}"
        needle = passkey(key) if number % 2 else fact(key, FACTS)
        document = plant(stretch, needle, depth(key))
        yield {"entity": entity, "query": needle.query, "document": document, "origin": PLANTED}


def _filled(form: tuple[str, str], draw: np.random.Generator) -> Needle:
    words = {
        "name": f"{_word(draw)} {_word(draw)}",
        "place": _word(draw),
        "thing": _THINGS[draw.integers(len(_THINGS))],
        "number": str(draw.integers(1000, 100_000)),
    }
    sentence, query = (part.format(**words) for part in form)
    return Needle(query, sentence)


def _word(draw: np.random.Generator) -> str:
    """Invent a word of two or three syllables with a capital: there are some millions."""
    sounds = (_ONSETS, _VOWELS, _CODAS) * int(draw.integers(2, 4))
    return "".join(part[draw.integers(len(part))] for part in sounds).capitalize()


def _generator(key: str) -> np.random.Generator:
    return np.random.default_rng(list(hashlib.sha256(key.encode()).digest()))
