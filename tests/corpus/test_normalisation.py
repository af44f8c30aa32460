"""Normalisation: what nobody sees is no difference between texts, and what a script needs stays."""

import sys
import unicodedata

import pytest

from stages.corpus.entities import text_entity
from stages.corpus.normalisation import folded, normalise
from stages.corpus.roles import text_key

PERSIAN, SINHALA, MALAYALAM = "می\u200cخواهم", "ශ්\u200dරී", "അവന്\u200d"
FAMILY, HEART, ENGLAND = (
    "\U0001f469\u200d\U0001f467",
    "\u2764\ufe0f\u200d\U0001f525",
    "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
)
VISIBLE = {0x600, 0x601, 0x602, 0x603, 0x604, 0x605, 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
HIEROGLYPHIC = set(range(0x13430, 0x13440))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  a \n\t b\x07c ", "a b c"),
        ("cafe\u0301", "caf\u00e9"),
        ("cafe\u200b\u0301", "caf\u00e9"),
        ("a\u00a0b\u2003c\u3000d\u202fe", "a b c d e"),
        ("\x85\x9f", ""),
        ("na\u00efve \U0001f3a9", "na\u00efve \U0001f3a9"),
        ("\ufeffthe red\u00ad\u200b la\u2060mp\u200e", "the red lamp"),
        ("the \u200b red", "the red"),
        ("the re\u200d\u200cd", "the red"),
        ("\u200b", ""),
        ("\u2800\u3164\ufe0f\u034f", ""),
        ("می\u200c\u200b\u200cخواهم\u200c", PERSIAN),
    ],
)
def test_unseen_characters_and_white_space_make_no_difference(text: str, expected: str) -> None:
    assert normalise(text) == expected
    assert normalise(expected) == expected


@pytest.mark.parametrize("text", [PERSIAN, SINHALA, MALAYALAM, FAMILY, HEART, ENGLAND, "\u0605\u0661", "\u2764\ufe0f"])
def test_what_a_script_needs_stays(text: str) -> None:
    assert normalise(text) == text


def test_every_format_character_between_letters_goes_but_those_that_are_seen() -> None:
    formats = [code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) == "Cf"]
    kept = {code for code in formats if normalise(f"a{chr(code)}b") != "ab"}
    assert kept - HIEROGLYPHIC == VISIBLE


@pytest.mark.parametrize(
    "other",
    [
        "WHERE IS THE RED LAMP? 5 m\u00b2, ﬁne\u2026",
        "Where\u00a0is the r\u00aded lamp? 5 m2, fine...",
        "\uff37here is the red lamp\uff1f \uff15 m2, fine...",
    ],
)
def test_texts_that_read_the_same_have_one_key_and_one_entity(other: str) -> None:
    text = "Where is the red lamp? 5 m\u00b2, fine\u2026"
    assert text_key("query", normalise(other)) == text_key("query", text)
    assert text_entity(other) == text_entity(text)
    assert folded(PERSIAN) == folded(PERSIAN.replace("\u200c", ""))
    assert folded("Straße") == folded("STRASSE")
    assert text_key("query", "five lamps") != text_key("query", "six lamps")
