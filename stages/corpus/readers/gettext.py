"""Message catalogues of gettext, .po and .mo: a message -> its translation, the text of programs in many languages.

Placeholders (`%(name)s`, `{name}`, `%d`) are the same on both sides and carry no meaning: they become an ellipsis.
Untranslated messages are left out; a fuzzy translation, a guess that a translator has not confirmed, is unreadable.
Symbolic names (`DATE_FORMAT`) are single words: the source's least length leaves them out.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import polib

from stages.corpus.records import Record, Unreadable

_AS_PAIR = {"text": "query", "translation": "document"}
_PLACEHOLDER = re.compile(r"%\(\w+\)[#0\- +]*\d*[a-zA-Z]|%[sdifru]|\{\w*\}")


def pairs(files: Sequence[Path], messages: str = "en") -> Iterator[Record]:
    """Yield pairs of message -> translation, as query and document; the rest is as for `parallel`."""
    for record in parallel(files, messages):
        if isinstance(record, Unreadable):
            yield record
        else:
            yield {_AS_PAIR.get(name, name): value for name, value in record.items()}


def parallel(files: Sequence[Path], messages: str = "en") -> Iterator[Record]:
    """Yield messages with their translations and languages as `en-fr`.

    The entity is the message, so that it occurs in one split in all its languages.

    Args:
        messages: language of the messages themselves.

    Raises:
        ValueError: a file is no catalogue, or names no language.
    """
    for file in files:
        catalogue = _catalogue(file)
        language = f"{messages}-{_language(catalogue, file)}"
        for entry in catalogue:
            # Of plural forms the general one, which is the last in every language.
            message = entry.msgid_plural or entry.msgid
            translation = entry.msgstr_plural[max(entry.msgstr_plural)] if entry.msgid_plural else entry.msgstr
            if entry.obsolete or not translation:
                continue
            plain, translated = (_PLACEHOLDER.sub("\u2026", text) for text in (message, translation))
            if "fuzzy" in entry.flags:
                yield Unreadable("a fuzzy translation", f"{plain} | {translated}")
            else:
                yield {"entity": message, "text": plain, "translation": translated, "language": language}


def _catalogue(file: Path) -> polib.POFile | polib.MOFile:
    try:
        return polib.mofile(str(file)) if file.suffix == ".mo" else polib.pofile(str(file))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"{file}: no message catalogue, or a damaged one ({error})") from error


def _language(catalogue: polib.POFile | polib.MOFile, file: Path) -> str:
    """Return a catalogue's ISO 639 code: from its header, else from the folder in which gettext looks for it."""
    name = catalogue.metadata.get("Language") or (file.parents[1].name if file.parent.name == "LC_MESSAGES" else "")
    code = re.match(r"[a-z]{2,3}(?![a-z])", name)
    if code is None:
        raise ValueError(
            f"{file}: names no language; put it into LANGUAGE/LC_MESSAGES, or a Language line into its header"
        )
    return code[0]
