"""Encodings of text files: what bytes that are not UTF-8 look like."""

from charset_normalizer import from_bytes

# Encodings that a detector cannot tell from Windows' one on short western text.
_WESTERN = {"cp1252", "latin_1", "cp1250", "cp1254", "cp1257", "iso8859_9", "iso8859_15", "mac_roman", "cp775", "cp858"}
SAMPLED_BYTES = 2**16
# Up to this share of the lines of a file may be damaged text in UTF-8; more are text in another encoding.
MAX_DAMAGED_LINES = 0.01


def utf_16_without_mark(start: bytes) -> str | None:
    """Return the encoding of text of which every second byte is zero."""
    for codec, zeros in (("utf-16-le", start[1:200:2]), ("utf-16-be", start[0:200:2])):
        if zeros.count(0) > len(zeros) // 2:
            return codec
    return None


def likely_encoding(text: bytes) -> str:
    """Guess the encoding of text that is not UTF-8."""
    found = from_bytes(text[:SAMPLED_BYTES]).best()
    return "cp1252" if found is None or found.encoding in _WESTERN else found.encoding


class EncodingCheck:
    r"""Counts the lines of a file that are not UTF-8, as they pass.

    >>> check = EncodingCheck("data/sources/faq.csv")
    >>> check.see("caf\udce9\n")
    >>> check.close()  # refuses a file with several such lines
    """

    def __init__(self, file: str) -> None:
        self._file = file
        self._lines, self._damaged, self._sample = 0, 0, b""

    def see(self, line: str) -> None:
        """Count a line, whose bytes that are not UTF-8 are lone surrogates."""
        self._lines += 1
        if line.isascii():
            return
        try:
            line.encode()
        except UnicodeEncodeError:
            self._damaged += 1
            if len(self._sample) < SAMPLED_BYTES:
                self._sample += line.encode(errors="surrogateescape")

    def close(self) -> None:
        """Refuse the file where it looks as if it was written in another encoding.

        Raises:
            ValueError: more lines than `MAX_DAMAGED_LINES` are not UTF-8, and not a single one.
        """
        if self._damaged > max(1, MAX_DAMAGED_LINES * self._lines):
            codec = likely_encoding(self._sample)
            raise ValueError(
                f"{self._file}: {self._damaged} of {self._lines} lines are not UTF-8; the file looks like {codec}: set "
                f"the source's option `encoding: {codec}`, or save the file as UTF-8"
            )
