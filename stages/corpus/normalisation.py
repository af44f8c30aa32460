"""The one normalisation of texts, labels, entities and languages, and the folding by which equal texts are found.

Characters that nobody sees (byte order marks, zero width spaces, soft hyphens, word joiners, marks of direction) make
equal texts different to every program, so they go. Joiners stay where a script needs them: between two letters of
Arabic, Indic and like scripts, behind a virama, and in emoji sequences.
"""

import re
import unicodedata

# Control characters, and the blanks of Braille and Hangul, which Unicode does not count as white space.
_BLANK = "\x00-\x1f\x7f-\x9f\u2800\u3164\uffa0"
_BLANKS = re.compile(f"[{_BLANK}]")
# General category Cf without the signs that are seen (of Arabic, Syriac and Kaithi numbers and verses) and without the
# controls that lay out hieroglyphs.
_UNSEEN = "\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U0001bca0-\U0001bca3"
_UNSEEN += "\U0001d173-\U0001d17a\U000e0000-\U000e007f"
# Variation selectors and the grapheme joiner, which need a letter before them.
_SELECTORS = "\u034f\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef"
_UNSEEN_RUN = re.compile(rf"[{_UNSEEN}]+|(?<!\S)[{_SELECTORS}]+")
_RARE = re.compile(f"[{_BLANK}{_UNSEEN}{_SELECTORS}]")  # one search in most texts instead of two replacements
# Default_Ignorable_Code_Point of the Unicode Character Database, as far as it is assigned.
_IGNORABLE = re.compile(rf"[{_UNSEEN}{_SELECTORS}\u115f\u1160\u17b4\u17b5]+")
_JOINERS, _FLAG, _END_OF_FLAG = "\u180e\u200c\u200d", "\U0001f3f4", "\U000e007f"
# Arabic to Myanmar, Philippine to Vedic, Phags-pa to Meetei Mayek, Kharosthi to the last of Brahmi's kin, Adlam.
_JOINED = re.compile("[\u0600-\u109f\u1700-\u180a\u1810-\u1cff\ua840-\uabff\U00010a00-\U00011fff\U0001e900-\U0001e95f]")
_EMOJI = re.compile("[\u00a9\u00ae\u2190-\u2bff\u3030\u303d\u3297\u3299\ufe0f\U0001f000-\U0001faff]")
_VIRAMA = 9  # its canonical combining class


def normalise(text: str) -> str:
    """Convert a text to Unicode NFC without control characters and unseen ones, and fold its white space."""
    if not (text.isascii() and text.isprintable()):
        if _RARE.search(text):
            text = _UNSEEN_RUN.sub(_needed, _BLANKS.sub(" ", text))
        text = unicodedata.normalize("NFC", text)
    return " ".join(text.split())


def folded(text: str) -> str:
    """Return what normalised texts that read the same have in common, however they are capitalised and joined.

    This is NFKC_Casefold of Unicode (full-width letters and ligatures become plain ones), for keys and never for texts.

    Example:
        >>> folded("The red \uff2camp")
        'the red lamp'
    """
    if text.isascii():
        return text.casefold()
    plain = _IGNORABLE.sub("", text).casefold()
    if (compatible := unicodedata.normalize("NFKC", plain)) == plain:
        return plain
    # A compatibility form may have capitals, and spaces.
    return " ".join(unicodedata.normalize("NFKC", compatible.casefold()).split())


def _needed(run: re.Match[str]) -> str:
    """Return of a run of unseen characters what the script around it needs: a joiner, a flag's tags, or nothing."""
    text, before, after = run.string, run.string[run.start() - 1 : run.start()], run.string[run.end() : run.end() + 1]
    if before == _FLAG and text[run.end() - 1] == _END_OF_FLAG:
        return run[0]
    joiner = next((letter for letter in run[0] if letter in _JOINERS), "")
    is_joined = _JOINED.match(before) and (_JOINED.match(after) or unicodedata.combining(before) == _VIRAMA)
    return joiner if is_joined or (_EMOJI.match(before) and _EMOJI.match(after)) else ""
