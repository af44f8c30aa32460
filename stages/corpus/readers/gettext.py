"""Message catalogues of gettext, .po and .mo: a message -> its translation, the text of programs in many languages.

Placeholders (`%(name)s`, `{name}`, `%d`) are the same on both sides and say nothing: they become an ellipsis. Messages
that nobody translated are left out; a fuzzy translation, a guess that a translator has still to look at, is unreadable.
Symbolic names (`DATE_FORMAT`) are single words: the source's least length leaves them out.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from stages.corpus.readers.unreadable import Unreadable

Record = dict[str, Any]

_PLACEHOLDER = re.compile(r"%\(\w+\)[#0\- +]*\d*[a-zA-Z]|%[sdifru]|\{\w*\}")


def pairs(files: Sequence[Path], messages: str = "en") -> Iterator[Record | Unreadable]:
    """Pairs of message -> translation, the languages of both as `en-fr`; the entity is the message, so that it stands
    in one split in all its languages.

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
            texts = {"query": _without_placeholders(message), "document": _without_placeholders(translation)}
            if "fuzzy" in entry.flags:
                yield Unreadable("a fuzzy translation", " | ".join(texts.values()))
            else:
                yield {"entity": message, **texts, "language": language}


def _catalogue(file: Path) -> Any:
    import polib

    try:
        return polib.mofile(str(file)) if file.suffix == ".mo" else polib.pofile(str(file))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"{file}: no message catalogue, or a damaged one ({error})") from error


def _language(catalogue: Any, file: Path) -> str:
    """ISO 639 code of a catalogue: what it says of itself, else the folder that gettext finds it in."""
    name = catalogue.metadata.get("Language") or (file.parents[1].name if file.parent.name == "LC_MESSAGES" else "")
    code = re.match(r"[a-z]{2,3}(?![a-z])", name)
    if code is None:
        raise ValueError(
            f"{file}: says no language; put it into LANGUAGE/LC_MESSAGES, or a Language line into its head"
        )
    return code[0]


def _without_placeholders(text: str) -> str:
    return _PLACEHOLDER.sub("\u2026", text)
