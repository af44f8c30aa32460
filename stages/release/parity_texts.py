"""Fixed texts on which every format must agree with torch: usual requests, and inputs on which runtimes fail."""

from typing import NamedTuple

# Everyday texts, then other scripts, then emoji, invisible characters and special tokens.
TEXTS = (
    "",
    "a",
    "hat",
    "how do plants make sugar?",
    "Photosynthesis turns light into chemical energy, which plants keep as sugar.",
    "A still is heated from below; what rises is cooled in a coil and caught drop by drop, first strong, then weak. "
    "What is caught first and last is kept apart, as neither is fit to drink.",
    "IS THIS SHOUTED? IT IS!",
    "naïve café, naïve café",  # composed and decomposed
    "  two\tspaces \n and a new line  ",
    "3.14159 - 2/3 = 2.47492 (see §5)!?",
    "def area(radius):\n    return 3.14159 * radius ** 2",
    "https://example.org/a_path?query=1&other=two#part",
    "Die Brennerei steht seit 1823 am Ufer der Weser.",
    "La distillerie se trouve au bord de la rivière.",
    "El agua hierve a cien grados.",
    "Винокурня стоит на берегу реки.",
    "Το αποστακτήριο είναι δίπλα στο ποτάμι.",
    "המזקקה עומדת על גדת הנהר.",
    "يقع معمل التقطير على ضفة النهر.",
    "आसवनी नदी के किनारे है।",
    "蒸馏厂坐落在河边。",
    "蒸留所は川のほとりにあります。",
    "증류소는 강가에 있습니다.",
    "โรงกลั่นตั้งอยู่ริมแม่น้ำ",
    "🎩🥃",
    "👩‍👩‍👧‍👦 a family, 🇳🇿 a flag, 👍🏽 a thumb",
    "\u200b",  # a space of no width alone
    "[UNK] [CLS] [SEP] <s> </s> <|endoftext|>",
)
_SENTENCE = "the copper still stands by the river and the barley dries on the floor above it"


class Case(NamedTuple):
    """A text, and the side whose prompt precedes it."""

    side: str
    text: str


def long_text(words: int) -> str:
    """Build a text of `words` short words."""
    sentence = _SENTENCE.split()
    return " ".join(sentence[number % len(sentence)] for number in range(words))


def fixed_cases(longest: int, max_tokens: int) -> list[Case]:
    """Every fixed text as a query and as a document, a long text, and a text that must be cut.

    Args:
        longest: tokens of the longest text that is embedded; the long text has half as many words.
        max_tokens: length at which the released models cut a text.
    """
    cases = [Case(side, text) for side in ("query", "document") for text in TEXTS]
    return [*cases, Case("document", long_text(longest // 2)), Case("document", long_text(max_tokens + 16))]
