"""Texts of sources: as curate keeps them, of large sources a part, or given; their tokens and windows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.corpus.cleaning import Limits
from stages.corpus.tables import SCHEMAS, write_table
from stages.modeling.encoder import EncoderSettings, load_encoder
from stages.modeling.tokenization import load_tokenizer
from stages.modeling.truncation import windows
from stages.planning import texts
from stages.planning.corpus import Corpus
from stages.planning.texts import (
    SourceTexts,
    TokenCounts,
    cleaned_texts,
    curated_texts,
    given_texts,
    in_windows,
)

ORIGIN = {"source": "toy", "kind": "labelled", "language": "en", "license": "none"}


def records(number: int) -> Any:
    return ({"entity": str(row), "text": f"text of row {row}", "label": "a"} for row in range(number))


def limits(max_rows: int | None) -> Limits:
    return Limits({"text": (1, 10)}, dev=0.2, test=0.2, max_rows=max_rows, seed=0)


def test_a_source_is_cleaned_as_curate_does() -> None:
    found = cleaned_texts([*records(50), *records(50)], ORIGIN, limits(None), ("text",))
    assert sum(found.rows(split) for split in ("train", "dev", "test")) == 50, "each text once"
    assert found.scale == 1
    assert found.counted == "read and cleaned now"


def test_of_a_large_source_the_first_records_stand_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "READ", 40)
    found = cleaned_texts(records(1000), ORIGIN, limits(400), ("text",))
    assert sum(len(part) for part in found.columns["text"].values()) == 40
    assert sum(found.rows(split) for split in ("train", "dev", "test")) == pytest.approx(400, abs=2)
    with pytest.raises(ValueError, match=r"source toy has over 40 records and no max_rows.*--rows toy=N"):
        cleaned_texts(records(1000), ORIGIN, limits(None), ("text",))


def test_curated_rows_are_read_by_source(tmp_path: Path) -> None:
    for split, names in {"train": ["toy", "other"], "dev": ["toy"], "test": []}.items():
        rows = [
            {"id": f"{name}/{split}", "text": f"{name} {split}", "label": "a", "entity": "e", **ORIGIN, "source": name}
            for name in names
        ]
        write_table(tmp_path / "labelled" / f"{split}.parquet", rows, SCHEMAS["labelled"])
    found = curated_texts(tmp_path, "toy", "labelled", ("text",))
    assert found.columns == {"text": {"train": ["toy train"], "dev": ["toy dev"], "test": []}}


def test_a_source_of_given_size() -> None:
    found = given_texts("big", 1_000_000, 80, dev=0.01, test=0.04, columns=("query", "document"))
    assert [found.rows(split) for split in ("train", "dev", "test")] == [950_000, 10_000, 40_000]
    assert found.tokens == 80
    names = [name for column in found.columns.values() for part in column.values() for name in part]
    assert len(names) == len(set(names)), "no text repeats"


@pytest.fixture
def counts(backbones: dict[str, Path]) -> TokenCounts:
    return TokenCounts(lambda model: load_tokenizer(str(backbones[model])))


def test_tokens_behind_a_prompt_up_to_the_cut(counts: TokenCounts, backbones: dict[str, Path]) -> None:
    some = ["ba", "ba be bi", ""]
    tokenizer = load_tokenizer(str(backbones["bert"]))
    expected = [len(tokenizer(f"query : {text}")["input_ids"]) for text in some]
    assert counts.lengths("bert", some, None, "query : ", 32).tolist() == expected == [5, 7, 4]
    assert counts.lengths("bert", some, None, "", 4).tolist() == [3, 4, 2]
    assert counts.lengths("bert", some, 80, "query : ", 32).tolist() == [32, 32, 32], "given, and cut"
    assert counts.lengths("bert", [], None, "query : ", 32).tolist() == []


def test_texts_are_tokenised_once_a_model(backbones: dict[str, Path]) -> None:
    calls: list[int] = []

    def counting(model: str) -> Callable[..., Any]:
        def tokenizer(some: list[str], **how: Any) -> dict[str, list[list[int]]]:
            calls.append(len(some))
            return {"input_ids": [[0] * len(text) for text in some]}

        return tokenizer

    counts, some = TokenCounts(counting), ["a", "bb", "ccc"]
    for max_tokens in (8, 2):
        counts.lengths("student", some, None, "", max_tokens)
    assert calls == [3]
    counts.lengths("teacher", some, None, "", 8)
    assert calls == [3, 3]


@pytest.mark.parametrize("architecture", ["bert", "qwen3"])
def test_windows_are_those_that_the_teacher_reads(
    backbones: dict[str, Path], counts: TokenCounts, architecture: str
) -> None:
    """A prompt of two tokens is in every window; BERT's tokenizer puts two more around a text."""
    settings = EncoderSettings("mean", {"document": "document : "}, 64)
    encoder = load_encoder(str(backbones[architecture]), settings)
    some = [" ".join(["ba"] * number) for number in (19, 4)]
    parts = windows(encoder, some, "document", 64, 8)[0]
    expected = [len(ids) for ids in encoder.tokenize(parts, "document")]
    lengths = counts.lengths(architecture, some, None, "document : ", 64)
    around = int(counts.lengths(architecture, [""], None, "document : ", 64)[0])
    assert sorted(in_windows(lengths, 8, around)) == sorted(expected)


def test_windows_by_hand() -> None:
    assert in_windows(np.array([3, 4, 9]), 4, 1).tolist() == [4, 4, 4, 3, 3]
    assert in_windows(np.array([3, 4]), 4, 1).tolist() == [3, 4]


def test_training_rows_in_proportion_to_their_sources(counts: TokenCounts) -> None:
    small = SourceTexts("read", {"text": {"train": ["ba", "ba be"], "dev": ["ba"], "test": []}}, scale=1.0)
    large = SourceTexts("read", {"text": {"train": ["ba", "ba be"], "dev": [], "test": []}}, scale=50.0)
    corpus = Corpus({"small": small, "large": large}, counts)
    assert corpus.lengths("bert", "small", "text", "", 32).tolist() == [3, 4]
    assert len(corpus.lengths("bert", "large", "text", "", 32)) == 100
    assert [part.tolist() for part in corpus.dev_lengths("bert", ["small"], {"text": ""}, 32)] == [[3]]


def test_a_large_corpus_is_thinned_out_alike(counts: TokenCounts) -> None:
    sources = {
        name: given_texts(name, rows, 5, dev=0, test=0, columns=("query", "document"))
        for name, rows in (("one", 3_000_000), ("two", 1_000_000))
    }
    corpus = Corpus(sources, counts)
    sizes = [len(corpus.lengths("bert", name, "query", "", 32)) for name in ("one", "two")]
    assert sizes == [150_000, 50_000]
