"""A sample of many texts: all of few, some of many, the same ones in any order."""

import hashlib

import numpy as np

from stages.corpus.text_sample import TextSample
from stages.teachers.shards import packed_keys

TEXTS = [f"text {number}" for number in range(2000)]
KEYS = packed_keys([hashlib.blake2b(text.encode(), digest_size=16).digest() for text in TEXTS])


def sampled(most: int, order: np.ndarray) -> dict[int, list[str]]:
    sample: TextSample[int] = TextSample(most)
    for part in np.array_split(order, 7):
        for group in (0, 1):
            rows = part[part % 2 == group]
            sample.add(group, KEYS[rows], [TEXTS[row] for row in rows])
    return sample.by_group()


def test_few_texts_are_all_kept_once() -> None:
    groups = sampled(2000, np.concatenate([np.arange(2000), np.arange(50)]))
    assert groups == {0: TEXTS[::2], 1: TEXTS[1::2]}


def test_of_many_the_same_are_kept_in_any_order() -> None:
    one, other = (sampled(300, np.random.default_rng(seed).permutation(2000)) for seed in (0, 1))
    assert {group: sorted(texts) for group, texts in one.items()} == {
        group: sorted(texts) for group, texts in other.items()
    }
    assert 100 < len(one[0]) + len(one[1]) <= 300
