"""The content-addressed vector store: keys, other teachers, kills, damage, merging, exports."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from stages.teachers import shards
from stages.teachers.fingerprint import Fingerprint
from stages.teachers.teacher import ReadingRule
from stages.teachers.vector_store import VectorStore

FINGERPRINT: dict[str, str | int | bool] = {
    "weights": "w1",
    "tokenizer": "t1",
    "pooling": "mean",
    "normalised": True,
    "dtype": "float16",
}
PLAIN_RULE = ReadingRule("", 128, 128)
MAPS = Path("/proc/self/maps")
TEXTS = [f"text {number}" for number in range(20)]
VECTORS = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)


def filled(folder: Path, order: Sequence[Sequence[int]], fingerprint: Fingerprint = FINGERPRINT) -> VectorStore:
    """A store of the texts, one shard a group of `order`."""
    store = VectorStore(folder, fingerprint)
    for group in order:
        store.add(store.keys(PLAIN_RULE, [TEXTS[number] for number in group]), VECTORS[list(group)])
    return store


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_vectors_come_back_by_text_in_the_order_asked(tmp_path: Path) -> None:
    filled(tmp_path, [range(7), range(7, 20)])
    store = VectorStore(tmp_path)  # as another process sees it
    asked = [19, 0, 7, 6, 0]
    found = store.vectors_of(PLAIN_RULE, [TEXTS[number] for number in asked])
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, VECTORS[asked].astype(np.float16))
    assert len(store) == 20


def test_the_key_depends_on_everything_that_decides_a_vector(tmp_path: Path) -> None:
    changes: list[dict[str, str | int | bool]] = [
        {},
        {"weights": "w2"},
        {"tokenizer": "t2"},
        {"pooling": "cls"},
        {"normalised": False},
        {"dtype": "float32"},
    ]
    stores = [VectorStore(tmp_path / str(number), FINGERPRINT | change) for number, change in enumerate(changes)]
    keys = {store.key(PLAIN_RULE, "text") for store in stores}
    assert len(keys) == len(changes)
    rules = [ReadingRule("query: ", 128, 128), ReadingRule("", 128, 64), ReadingRule("", 256, 128)]
    keys |= {stores[0].key(rule, "text") for rule in rules}
    keys |= {stores[0].key(PLAIN_RULE, "Text"), stores[0].key(PLAIN_RULE, "query: text")}
    assert len(keys) == len(changes) + 5
    again = VectorStore(tmp_path / "again", dict(reversed(FINGERPRINT.items())))
    assert again.key(PLAIN_RULE, "text") == stores[0].key(PLAIN_RULE, "text")
    assert {len(key) for key in keys} == {16}


def test_vectors_of_another_teacher_are_refused(tmp_path: Path) -> None:
    filled(tmp_path, [range(3)])
    with pytest.raises(ValueError, match=r"holds vectors of another teacher: \['pooling', 'weights'\] differ"):
        VectorStore(tmp_path, FINGERPRINT | {"weights": "w2", "pooling": "cls"})
    with pytest.raises(ValueError, match=r"another teacher: \['revision'\] differ"):
        VectorStore(tmp_path, FINGERPRINT | {"revision": "2"})
    assert len(VectorStore(tmp_path, FINGERPRINT)) == 3


def test_no_store_is_no_empty_store(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no vector store"):
        VectorStore(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_missing_texts_are_counted(tmp_path: Path) -> None:
    store = filled(tmp_path, [range(5)])
    with pytest.raises(KeyError, match="2 of 4 texts have no teacher vector; run the embed stage"):
        store.vectors_of(PLAIN_RULE, [TEXTS[0], TEXTS[5], TEXTS[1], TEXTS[6]])
    with pytest.raises(KeyError, match="1 of 1"):
        store.vectors_of(ReadingRule("query: ", 128, 128), [TEXTS[0]])


def test_vectors_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    store = filled(tmp_path, [])
    broken = VECTORS[:2].copy()
    broken[1, 3] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        store.add(store.keys(PLAIN_RULE, TEXTS[:2]), broken)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_a_vector_too_large_for_its_precision_is_refused(tmp_path: Path) -> None:
    store = filled(tmp_path, [])
    with pytest.raises(ValueError, match="not finite"):
        store.add(store.keys(PLAIN_RULE, TEXTS[:1]), np.full((1, 6), 1e6, dtype=np.float32))


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
        where = {"write": (shards, "save_file"), "flush": (shards.os, "fsync"), "rename": (Path, "rename")}[dies_at]
        patched.setattr(*where, die)
        store = VectorStore(tmp_path / "store", FINGERPRINT)
        keys = store.keys(PLAIN_RULE, TEXTS[5:9])
        with pytest.raises(KeyboardInterrupt):
            store.add(keys, VECTORS[5:9])
    again = VectorStore(tmp_path / "store", FINGERPRINT)
    assert len(again) == 5
    again.add(keys, VECTORS[5:9])
    np.testing.assert_array_equal(again.vectors_of(PLAIN_RULE, TEXTS[:9]), VECTORS[:9].astype(np.float16))


def test_an_export_is_the_same_bytes_whatever_the_history(tmp_path: Path) -> None:
    histories = [[range(20)], [range(10, 20), range(10)], [[number] for number in reversed(range(20))]]
    exported = []
    for number, history in enumerate(histories):
        store = filled(tmp_path / f"working{number}", history)
        keys = store.keys(PLAIN_RULE, TEXTS[:15])
        if number == 1:
            keys = np.concatenate([keys[::-1], keys[:1]])  # order and repetition do not matter
        store.export(keys, tmp_path / f"exported{number}", shard_rows=6)
        exported.append(files(tmp_path / f"exported{number}"))
    assert exported[0] == exported[1] == exported[2]
    assert len(exported[0]) == 4  # the manifest, 6 + 6 + 3 rows
    target = VectorStore(tmp_path / "exported0", FINGERPRINT)
    assert len(target) == 15
    np.testing.assert_array_equal(target.vectors_of(PLAIN_RULE, TEXTS[:15]), VECTORS[:15].astype(np.float16))
    assert target.holds(store.keys(PLAIN_RULE, TEXTS[14:16])).tolist() == [True, False]


def test_an_export_of_what_is_not_there_is_refused(tmp_path: Path) -> None:
    store = filled(tmp_path / "working", [range(3)])
    with pytest.raises(KeyError, match="1 of 4 texts"):
        store.export(store.keys(PLAIN_RULE, TEXTS[:4]), tmp_path / "exported", shard_rows=10)


@pytest.mark.parametrize("groups", [1, 3, 40])
def test_a_lookup_finds_the_same_however_the_rows_are_spread(tmp_path: Path, groups: int) -> None:
    generator = np.random.default_rng(groups)
    texts = [f"row {number}" for number in range(1000)]
    vectors = generator.normal(size=(1000, 4)).astype(np.float16)
    store = VectorStore(tmp_path, FINGERPRINT)
    for part in np.array_split(generator.permutation(1000), groups):
        store.add(store.keys(PLAIN_RULE, [texts[number] for number in part]), vectors[part])
    again = VectorStore(tmp_path)
    for size in (1, 2, 30, 999, 3000):
        asked = generator.integers(1000, size=size)
        np.testing.assert_array_equal(again.vectors_of(PLAIN_RULE, [texts[number] for number in asked]), vectors[asked])
    asked_for = store.keys(PLAIN_RULE, ["no", "row 5", "neither", "row 999", "row 5"])
    assert again.holds(asked_for).tolist() == [False, True, False, True, True]


@pytest.mark.parametrize("damage", ["changed", "cut", "emptied", "header"])
def test_a_damaged_shard_is_named_with_what_to_do(tmp_path: Path, damage: str) -> None:
    filled(tmp_path, [range(7), range(7, 20)])
    path = sorted(tmp_path.glob("*.safetensors"))[0]
    content = bytearray(path.read_bytes())
    if damage == "changed":
        content[-3] ^= 1
    path.write_bytes({"cut": content[:-5], "emptied": b"", "header": b"x" * 40 + content}.get(damage, bytes(content)))
    with pytest.raises(ValueError, match=rf"{path} is damaged: .*; delete this file and run the embed stage"):
        VectorStore(tmp_path).vectors_of(PLAIN_RULE, TEXTS)
    path.unlink()
    assert len(VectorStore(tmp_path)) in (7, 13), "the other shard is as it was"


def test_small_shards_are_merged_and_lose_nothing(tmp_path: Path) -> None:
    store = filled(tmp_path, [range(8), *([number] for number in range(8, 20))])
    store.compact(8)
    assert sorted(len(shards.Shard(path)) for path in tmp_path.glob("*.safetensors")) == [4, 8, 8]
    for merged in (store, VectorStore(tmp_path)):
        np.testing.assert_array_equal(merged.vectors_of(PLAIN_RULE, TEXTS), VECTORS.astype(np.float16))
        assert len(merged) == 20
    before = files(tmp_path)
    VectorStore(tmp_path).compact(8)
    assert files(tmp_path) == before


def test_a_kill_while_merging_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path, [[number] for number in range(20)])
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            VectorStore(tmp_path).compact(50)
    store = VectorStore(tmp_path)
    assert len(store) == 40, "merged rows and the small shards that they came from"
    store.compact(50)
    assert len(store) == len(VectorStore(tmp_path)) == 20
    np.testing.assert_array_equal(store.vectors_of(PLAIN_RULE, TEXTS), VECTORS.astype(np.float16))


def test_all_other_rows_are_deleted_and_no_more(tmp_path: Path) -> None:
    store = filled(tmp_path, [range(5), range(5, 12), range(12, 20)])
    assert store.delete_except(store.keys(PLAIN_RULE, [*TEXTS[:5], *TEXTS[8:12], "another"]), 100) == 11
    assert store.delete_except(store.all_keys(), 100) == 0
    left = VectorStore(tmp_path)
    held = left.holds(store.keys(PLAIN_RULE, TEXTS))
    assert held.tolist() == [number < 5 or 8 <= number < 12 for number in range(20)]
    np.testing.assert_array_equal(left.vectors_of(PLAIN_RULE, TEXTS[8:12]), VECTORS[8:12].astype(np.float16))


@pytest.mark.skipif(not MAPS.exists(), reason="only Linux lists the files that a process has mapped")
def test_a_shard_is_mapped_and_not_copied_into_memory(tmp_path: Path) -> None:
    filled(tmp_path, [range(20)])
    (path,) = tmp_path.glob("*.safetensors")
    assert str(path) not in MAPS.read_text()
    store = VectorStore(tmp_path)
    assert str(path) in MAPS.read_text()
    np.testing.assert_array_equal(store.vectors_of(PLAIN_RULE, TEXTS), VECTORS.astype(np.float16))
