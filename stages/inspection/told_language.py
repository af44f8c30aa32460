"""The language of a person's texts, told by the texts or by their format, and whether the teacher knows it."""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from stages.corpus.languages import MULTIPLE, text_languages
from stages.corpus.records import Unreadable
from stages.inspection.reading import Reading
from stages.inspection.statistics import TableFacts, languages_of
from stages.inspection.teacher import DEFAULT_TEACHER, MULTILINGUAL

# Texts of a language from which it is told; fewer are read as one text.
LEAST_TOLD = 3


class ToldLanguage(NamedTuple):
    """The language to declare, the languages that occur, the evidence, and whether it may be wrong."""

    declared: str
    found: frozenset[str]
    evidence: str
    is_guess: bool


def told_language(reading: Reading, facts: TableFacts, given: str | None) -> ToldLanguage:
    """Tell the language of the texts, or take the given one.

    Raises:
        ValueError: the language cannot be told, or there are several.
    """
    if reading.reader == "gettext.pairs":
        if given is not None:
            raise ValueError(f"--language {given}: each catalogue names its language; leave the option out")
        named = Counter(str(row["language"]) for row in reading.records() if not isinstance(row, Unreadable))
        language = next(iter(named)) if len(named) == 1 else MULTIPLE
        evidence = f"language: {', '.join(sorted(named))}, as the catalogues name them"
        return ToldLanguage(language, _languages(named), evidence, is_guess=False)
    if given is not None:
        return ToldLanguage(given, _languages([given]), f"language: {given}, as given", is_guess=False)
    texts = facts.texts["document" if "document" in facts.texts else "query"]
    found = languages_of(texts)
    if found.total() < LEAST_TOLD:
        found = languages_of([" ".join(facts.texts.get("query", texts)[:50])])
        if not found:
            raise ValueError("the language of these texts cannot be told; give it: --language en")
        language = next(iter(found))
        evidence = f"language: {language}, of the first texts read as one; --language corrects it"
        return ToldLanguage(language, _languages(found), evidence, is_guess=True)
    (language, count), total = found.most_common(1)[0], found.total()
    if count < 0.6 * total:
        shares = ", ".join(f"{name} {number / total:.0%}" for name, number in found.most_common(3))
        raise ValueError(
            f"got texts in several languages ({shares}), expected one; give a file for each, or, where these are "
            f"wrong, the language: --language {language}"
        )
    evidence = f"language: {language}, of {count} of {total} texts that tell one"
    return ToldLanguage(language, _languages([language]), evidence, is_guess=True)


def _languages(declared: Iterable[str]) -> frozenset[str]:
    """Return the ISO 639 codes of languages and pairs of them, and refuse what is no language."""
    return frozenset(code for language in declared for code in text_languages(language))


def check_teacher(told: ToldLanguage, teacher: str) -> None:
    """Refuse the default teacher for texts that it does not know.

    Raises:
        ValueError: a language is not English.
    """
    unknown = sorted(told.found - {"en"})
    if teacher == DEFAULT_TEACHER and unknown:
        hint = ". If the text is English after all: --language en" if told.is_guess else ""
        raise ValueError(
            f"{told.evidence}; the default teacher, all-MiniLM-L6-v2, knows English alone, and a student cannot learn "
            f"from it what it does not know. Give a teacher that knows {', '.join(unknown)}, by its hub id or its "
            f"folder: --teacher {MULTILINGUAL[0]} (small), {', '.join(MULTILINGUAL[1:])}; a server is a teacher too "
            f"(kind: endpoint, docs/guides/teachers.md){hint}"
        )
