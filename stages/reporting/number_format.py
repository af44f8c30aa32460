"""Numbers and names as every page writes them: one rule for each kind of figure.

Scores and shares are fractions in the inputs; pages show them times 100 with one decimal.
"""

import math
import re
from datetime import UTC, datetime
from typing import TypeGuard

# Written as escapes: each of these looks like another character.
MISSING = "\u2013"  # en dash
MINUS = "\u2212"
TIMES = "\u00d7"
COSINE_DECIMALS = 4

# The last word of a figure's name tells its unit; a name without one of these is a score or a share.
UNITS = {"bytes": "bytes", "dimensions": "dimensions", "megabytes": "MB", "seconds": "s"}
COUNTED = ("failures", "allowed", "left_out")  # ends of names of counts
SPELLINGS = {"bm25": "BM25", "gor": "GOR", "mteb": "MTEB", "nce": "NCE", "ndcg": "nDCG", "cosent": "CoSENT"}


def is_known(value: float | None) -> TypeGuard[float]:
    """Whether there is a finite number to show."""
    return value is not None and math.isfinite(value)


def fixed(value: float | None, decimals: int = 1) -> str:
    """Write a plain number, thousands separated, with a true minus sign: `1,234.5`."""
    if not is_known(value):
        return MISSING
    text = f"{value:,.{decimals}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def score(value: float | None, decimals: int = 1) -> str:
    """Write a score of 0 to 1 times 100, without a sign, for columns headed by their metric: `41.2`."""
    return fixed(None if value is None else value * 100, decimals)


def percent(value: float | None, decimals: int = 1) -> str:
    """Write a share: 0.8712 is `87.1%`."""
    text = score(value, decimals)
    return text if text == MISSING else f"{text}%"


def points(value: float | None, decimals: int = 1) -> str:
    """Write a difference of two scores, with its sign, times 100: `+1.2`."""
    text = score(value, decimals)
    return f"+{text}" if text[0].isdigit() and text.strip("0.,") else text


def count(value: float | None) -> str:
    """Write a whole number of things: `12,345`."""
    return fixed(value, 0)


def compact(value: float | None) -> str:
    """Write a large number short, as in parameter counts: 22,713,216 is `22.7 M`."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if is_known(value) and abs(value) >= size:
            return f"{fixed(value / size)} {letter}"
    return count(value)


def figure(name: str, value: float | None, decimals: int = 1) -> str:
    """Write a named figure: its unit from the name, points for a difference, else a percentage.

    A name with `_over_` or ending in `difference` is a difference of two scores. A cosine is written as it is, with
    enough decimals to tell 0.9990 from 0.9999. A value beyond 200 % is no score or share and is written as it is.
    """
    unit = UNITS.get(name.rpartition("_")[2])
    if not is_known(value):
        return MISSING
    if unit:
        return f"{fixed(value, decimals)} {unit}"
    if name.endswith(COUNTED):
        return count(value)
    if "cosine" in name:
        return fixed(value, max(decimals, COSINE_DECIMALS))
    if "_over_" in name or name.endswith("difference"):
        return f"{points(value, decimals)} points"
    return fixed(value, decimals) if abs(value) > 2 else percent(value, decimals)


def words(name: str) -> str:
    """Turn an identifier into words: `text-matching` is `Text matching`, `ndcg_at_10` is `nDCG@10`."""
    parts = re.split(r"([ @])", name.replace("_at_", "@").replace("_", " ").replace("-", " "))
    text = "".join(SPELLINGS.get(part, part) for part in parts).replace("info NCE", "InfoNCE")
    return text if parts[0] in SPELLINGS else text[:1].upper() + text[1:]


def moment(text: str | None) -> str:
    """Write an ISO time in UTC to the minute; text that is no time is shown as it came."""
    if not text:
        return MISSING
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return text
    if time.tzinfo is None:
        return time.strftime("%Y-%m-%d %H:%M")
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
