"""The content-addressed vector store: addresses, other teachers, kills, exports."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from stages.corpus import vectors
from stages.corpus.vectors import Reading, VectorStore

IDENTITY: dict[str, str | int | bool] = {
    "weights": "w1",
    "tokenizer": "t1",
    "pooling": "mean",
    "normalised": True,
    "dtype": "float16",
}
PLAIN = Reading("", 128, 128)
TEXTS = [f"text {number}" for number in range(20)]
VECTORS = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)


def filled(
    folder: Path, order: Sequence[Sequence[int]], identity: Mapping[str, str | int | bool] = IDENTITY
) -> VectorStore:
    """A store of the texts, one shard a group of `order`."""
    store = VectorStore(folder, identity)
    for group in order:
        store.add([store.key(PLAIN, TEXTS[place]) for place in group], VECTORS[list(group)])
    return store


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_vectors_come_back_by_text_in_the_order_asked(tmp_path: Path) -> None:
    filled(tmp_path, [range(7), range(7, 20)])
    store = VectorStore(tmp_path)  # as another process sees it
    asked = [19, 0, 7, 6, 0]
    found = store.texts(PLAIN, [TEXTS[place] for place in asked])
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, VECTORS[asked].astype(np.float16))
    assert len(store) == 20


def test_the_address_holds_all_that_decides_a_vector(tmp_path: Path) -> None:
    changes: list[dict[str, str | int | bool]] = [
        {},
        {"weights": "w2"},
        {"tokenizer": "t2"},
        {"pooling": "cls"},
        {"normalised": False},
        {"dtype": "float32"},
    ]
    stores = [VectorStore(tmp_path / str(place), IDENTITY | change) for place, change in enumerate(changes)]
    keys = {store.key(PLAIN, "text") for store in stores}
    assert len(keys) == len(changes)
    readings = [Reading("query: ", 128, 128), Reading("", 128, 64), Reading("", 256, 128)]
    keys |= {stores[0].key(reading, "text") for reading in readings}
    keys |= {stores[0].key(PLAIN, "Text"), stores[0].key(PLAIN, "query: text")}
    assert len(keys) == len(changes) + 5
    again = VectorStore(tmp_path / "again", dict(reversed(IDENTITY.items())))
    assert again.key(PLAIN, "text") == stores[0].key(PLAIN, "text")
    assert {len(key) for key in keys} == {16}


def test_vectors_of_another_teacher_are_refused(tmp_path: Path) -> None:
    filled(tmp_path, [range(3)])
    with pytest.raises(ValueError, match=r"holds vectors of another teacher: \['pooling', 'weights'\] differ"):
        VectorStore(tmp_path, IDENTITY | {"weights": "w2", "pooling": "cls"})
    with pytest.raises(ValueError, match=r"another teacher: \['revision'\] differ"):
        VectorStore(tmp_path, IDENTITY | {"revision": "2"})
    assert len(VectorStore(tmp_path, IDENTITY)) == 3


def test_no_store_is_no_empty_store(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no vector store"):
        VectorStore(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_missing_texts_are_counted(tmp_path: Path) -> None:
    store = filled(tmp_path, [range(5)])
    with pytest.raises(KeyError, match="2 of 4 texts have no teacher vector; run the embed stage"):
        store.texts(PLAIN, [TEXTS[0], TEXTS[5], TEXTS[1], TEXTS[6]])
    with pytest.raises(KeyError, match="1 of 1"):
        store.texts(Reading("query: ", 128, 128), [TEXTS[0]])


def test_vectors_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    store = filled(tmp_path, [])
    broken = VECTORS[:2].copy()
    broken[1, 3] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        store.add([store.key(PLAIN, text) for text in TEXTS[:2]], broken)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_a_vector_too_large_for_its_precision_is_refused(tmp_path: Path) -> None:
    store = filled(tmp_path, [])
    with pytest.raises(ValueError, match="not finite"):
        store.add([store.key(PLAIN, TEXTS[0])], np.full((1, 6), 1e6, dtype=np.float32))


@pytest.mark.parametrize("dies_at", ["write", "flush", "rename"])
def test_a_kill_while_writing_leaves_whole_shards_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: str
) -> None:
    filled(tmp_path / "store", [range(5)])

    def die(*args: object) -> None:
        if dies_at == "write":
            (tmp_path / "store" / "half.partial").write_bytes(b"half a shard")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        where = {"write": (vectors, "save_file"), "flush": (vectors.os, "fsync"), "rename": (Path, "rename")}[dies_at]
        patched.setattr(*where, die)
        store = VectorStore(tmp_path / "store", IDENTITY)
        keys = [store.key(PLAIN, text) for text in TEXTS[5:9]]
        with pytest.raises(KeyboardInterrupt):
            store.add(keys, VECTORS[5:9])
    again = VectorStore(tmp_path / "store", IDENTITY)
    assert len(again) == 5
    again.add(keys, VECTORS[5:9])
    np.testing.assert_array_equal(again.texts(PLAIN, TEXTS[:9]), VECTORS[:9].astype(np.float16))


def test_an_export_is_the_same_bytes_whatever_the_history(tmp_path: Path) -> None:
    histories = [[range(20)], [range(10, 20), range(10)], [[place] for place in reversed(range(20))]]
    exported = []
    for number, history in enumerate(histories):
        store = filled(tmp_path / f"working{number}", history)
        keys = [store.key(PLAIN, TEXTS[place]) for place in range(15)]
        if number == 1:
            keys = [*reversed(keys), keys[0]]  # order and repetition do not matter
        store.export(keys, tmp_path / f"exported{number}", shard_rows=6)
        exported.append(files(tmp_path / f"exported{number}"))
    assert exported[0] == exported[1] == exported[2]
    assert len(exported[0]) == 4  # the manifest, 6 + 6 + 3 rows
    target = VectorStore(tmp_path / "exported0", IDENTITY)
    assert len(target) == 15
    np.testing.assert_array_equal(target.texts(PLAIN, TEXTS[:15]), VECTORS[:15].astype(np.float16))
    assert store.key(PLAIN, TEXTS[15]) not in target


def test_an_export_of_what_is_not_there_is_refused(tmp_path: Path) -> None:
    store = filled(tmp_path / "working", [range(3)])
    with pytest.raises(KeyError, match="1 of 4 texts"):
        store.export([store.key(PLAIN, text) for text in TEXTS[:4]], tmp_path / "exported", shard_rows=10)
