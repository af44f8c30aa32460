"""What is cut and said so, and texts read window by window."""

from pathlib import Path

import numpy as np
import pytest

from stages.modeling.encoder import Encoder, EncoderSettings, load_encoder
from stages.modeling.truncation import (
    check_truncation,
    encode_windows,
    first_tokens,
    token_counts,
    truncated_share,
    windows,
)

# A syllable is a token; [CLS] and [SEP] stand around a text, and this prompt has two tokens.
PROMPTS = {"query": "query : ", "document": ""}
TEXT = "ba be bi bo bu ca ce ci co cu da de di do du"


@pytest.fixture(scope="module")
def encoder(backbones: dict[str, Path]) -> Encoder:
    return load_encoder(str(backbones["bert"]), EncoderSettings("mean", PROMPTS, 8))


def test_tokens_are_those_of_the_whole_text_behind_its_prompt(encoder: Encoder) -> None:
    assert token_counts(encoder, [TEXT, "ba", ""], "document") == [17, 3, 2]
    assert token_counts(encoder, [TEXT], "query") == [19]
    assert truncated_share([8, 9, 10, 8], 8) == 0.5
    assert truncated_share([], 8) == 0.0


def test_too_many_cut_texts_stop_a_phase_with_what_to_do(encoder: Encoder) -> None:
    texts = {"query": ["ba"], "document": [TEXT, "be", "bi bo"]}
    check_truncation(encoder, texts, max_tokens=8, max_share=0.25, name="distill")
    check_truncation(encoder, texts, max_tokens=17, max_share=0.0, name="distill")
    says = (
        r"distill: 25\.0% of 4 texts are cut at max_tokens 8, max_truncated_share is 20\.0%; raise max_tokens "
        r"\(90% of the texts fit into 13\)"
    )
    with pytest.raises(ValueError, match=says):
        check_truncation(encoder, texts, max_tokens=8, max_share=0.2, name="distill")


def test_windows_are_consecutive_and_leave_room_for_the_prompt(encoder: Encoder) -> None:
    assert windows(encoder, [TEXT], "document", 100, 8)[0] == ["ba be bi bo bu ca", " ce ci co cu da de", " di do du"]
    assert windows(encoder, [TEXT], "query", 100, 8)[0][0] == "ba be bi bo"
    assert windows(encoder, [TEXT], "document", 8, 6)[0] == ["ba be bi bo", " bu ca ce ci"]
    assert windows(encoder, [TEXT], "document", 7, 6)[0] == ["ba be bi bo", " bu ca ce"]
    assert windows(encoder, ["ba  be"], "document", 100, 8)[0] == ["ba  be"]
    assert windows(encoder, [""], "document", 100, 8)[0] == [""]
    with pytest.raises(ValueError, match="window_tokens is 4, and the prompt alone fills that"):
        windows(encoder, [TEXT], "query", 100, 4)


def test_a_long_text_is_the_mean_of_its_windows_weighted_by_tokens(encoder: Encoder) -> None:
    texts = ["ba be", TEXT, TEXT + " fa fe"]
    got = encode_windows(encoder, texts, "document", max_tokens=15, window_tokens=8, batch_tokens=16)
    parts = encoder.encode(["ba be bi bo bu ca", "ce ci co cu da de", "di do du"], "document")
    mean = (parts * np.array([[8], [8], [5]])).sum(axis=0)
    expected = [encoder.encode(["ba be"], "document")[0], *[mean / np.linalg.norm(mean)] * 2]
    np.testing.assert_allclose(got, np.stack(expected), atol=1e-5)


def test_one_window_is_plain_reading(encoder: Encoder) -> None:
    texts = [TEXT, "ba be"]
    np.testing.assert_allclose(
        encode_windows(encoder, texts, "query", max_tokens=8, window_tokens=8, batch_tokens=64),
        encoder.encode(texts, "query"),
        atol=1e-6,
    )


def test_a_prefix_is_so_many_tokens(encoder: Encoder) -> None:
    assert first_tokens(encoder, TEXT, 3) == "ba be bi"
    assert first_tokens(encoder, TEXT, 15) == TEXT
    assert first_tokens(encoder, TEXT, 100) == TEXT
