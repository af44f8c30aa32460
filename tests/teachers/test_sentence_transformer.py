"""Teachers in the Sentence Transformers format: their own layers, instructions, lengths and fingerprints."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Router
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, StaticEmbedding, Transformer
from tokenizers import Tokenizer

from stages.recipe.embed import LongTexts, SentenceTransformerFolder
from stages.recipe.recipe import Recipe
from stages.teachers.sentence_transformer import SentenceTransformerTeacher
from stages.teachers.teacher import ReadingRule
from stages.teachers.vector_store import VectorStore

TEXTS = ["ba be bi", "bo", "ca ce ci co cu da de di do du", "fa"]
LONG = " ".join(["ba be bi bo bu ca ce ci co cu"] * 3)
Load = Callable[..., SentenceTransformerTeacher]


@pytest.fixture(scope="module")
def folder(backbones: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT, max pooling that leaves the prompt out, a Dense layer to 8 dimensions, prompts of its own."""
    torch.manual_seed(0)
    modules = [
        Transformer(str(backbones["bert"])),
        Pooling(32, pooling_mode="max", include_prompt=False),
        Dense(32, 8),
        Normalize(),
    ]
    path = tmp_path_factory.mktemp("sentence") / "model"
    model = SentenceTransformer(modules=modules, prompts={"query": "query :", "document": ""}, device="cpu")
    model.default_prompt_name = "query"  # which must not come into texts that the recipe reads without a prompt
    model.save(str(path))
    return path


@pytest.fixture
def load(folder: Path, short_recipe: dict[str, Any]) -> Load:
    prompts = {"query": "query : ", "document": "", "clustering": ""}

    def teacher(path: Path = folder, precision: str = "float32", **changes: Any) -> SentenceTransformerTeacher:
        recipe = Recipe.model_validate(short_recipe)
        section = recipe.embed.model_copy(update={"prompts": prompts, "max_tokens": 24, "batch_tokens": 96, **changes})
        engine = recipe.engine.model_copy(update={"precision": precision, "threads": 1})
        model = SentenceTransformerFolder(kind="sentence_transformer", path=str(path))
        return SentenceTransformerTeacher(model, section, engine)

    return teacher


@pytest.mark.parametrize("prompt", ["", "query : "])
def test_vectors_are_sentence_transformers_own(load: Load, folder: Path, prompt: str) -> None:
    peer = SentenceTransformer(str(folder), device="cpu")
    expected = peer.encode(TEXTS, prompt=prompt, normalize_embeddings=True)
    assert expected.shape == (4, 8)
    found = load().embed(TEXTS, ReadingRule(prompt, 24, 24))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    other = load().embed(TEXTS, ReadingRule("query : " if prompt == "" else "", 24, 24))
    assert np.abs(found - other).max() > 0.01


def test_tokens_are_counted_whole_and_texts_are_cut(load: Load) -> None:
    teacher = load()
    assert teacher.token_counts(["ba be", LONG], "query : ") == [6, 34]
    cut, whole = (teacher.embed([LONG], ReadingRule("", tokens, tokens)) for tokens in (8, 24))
    np.testing.assert_allclose(cut, teacher.embed([" ".join(LONG.split()[:6])], ReadingRule("", 24, 24)), atol=1e-6)
    assert np.abs(cut - whole).max() > 0.01


def test_a_long_text_is_the_mean_of_its_windows(load: Load) -> None:
    teacher = load(long=LongTexts(sources=("books",), max_tokens=20, window_tokens=12))
    words = LONG.split()
    windows = [" ".join(words[:10]), " ".join(words[10:20])]
    parts = teacher.embed(windows, ReadingRule("", 12, 12))
    expected = parts.sum(axis=0) / np.linalg.norm(parts.sum(axis=0))
    found = teacher.embed(["ba", LONG], ReadingRule("", 20, 12))
    np.testing.assert_allclose(found[1], expected, atol=1e-5)
    np.testing.assert_allclose(found[0], teacher.embed(["ba"], ReadingRule("", 12, 12))[0], atol=1e-6)


def test_a_length_that_it_cannot_read_is_refused(load: Load) -> None:
    with pytest.raises(ValueError, match=r"max_tokens is 65 but .* reads 64; lower max_tokens"):
        load(max_tokens=65).embed(["ba"], ReadingRule("", 65, 65))


def test_every_layer_is_part_of_the_fingerprint(load: Load, folder: Path, tmp_path: Path) -> None:
    first = load().fingerprint
    assert load().fingerprint == first
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "README.md").write_text("other words about it")
    assert load(copy).fingerprint == first
    (dense,) = copy.glob("*_Dense/model.safetensors")
    save_file({name: tensor + 1e-3 for name, tensor in load_file(dense).items()}, dense)
    assert load(copy).fingerprint["digest"] != first["digest"]
    assert load(precision="bfloat16").fingerprint["digest"] != first["digest"]


def test_prompts_of_its_own_that_the_recipe_leaves_out_are_told(
    load: Load, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load().embed(["ba"], ReadingRule("", 24, 24))
    assert f"{folder} has a prompt 'query', 'query :', that embed.prompts does not use" in capsys.readouterr().err


def test_a_static_model_reads_texts_of_any_length(load: Load, backbones: dict[str, Path], tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(backbones["bert"] / "tokenizer.json"))
    torch.manual_seed(0)
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=6)], device="cpu").save(
        str(tmp_path / "static")
    )
    teacher = load(tmp_path / "static")
    assert teacher.token_counts(["ba"], "") is None
    vectors = teacher.embed([*TEXTS, LONG], ReadingRule("", 24, 24))
    assert vectors.shape == (5, 6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("is_first", [True, False])
def test_an_asymmetric_model_reads_each_side_with_its_own_weights(
    load: Load, backbones: dict[str, Path], tmp_path: Path, is_first: bool
) -> None:
    """The sides of a pair once got the vectors of documents alike."""
    torch.manual_seed(0)
    backbone, pooling = Transformer(str(backbones["bert"])), Pooling(32)
    static = StaticEmbedding(Tokenizer.from_file(str(backbones["bert"] / "tokenizer.json")), embedding_dim=32)
    if is_first:
        modules = [Router.for_query_document([static], [backbone, pooling]), Normalize()]
    else:
        modules = [backbone, pooling, Router.for_query_document([Dense(32, 8)], [Dense(32, 8)])]
    folder = tmp_path / "model"
    SentenceTransformer(modules=modules, device="cpu").save(str(folder))
    peer, teacher = SentenceTransformer(str(folder), device="cpu"), load(folder)
    of_side = {
        "query": peer.encode_query(TEXTS, normalize_embeddings=True),
        "document": peer.encode_document(TEXTS, normalize_embeddings=True),
    }
    assert np.abs(of_side["query"] - of_side["document"]).max() > 0.1
    rules = {side: ReadingRule("", 24, 24, side) for side in ("query", "document", "clustering")}
    for side, rule in rules.items():
        found = teacher.embed(TEXTS, rule)
        np.testing.assert_allclose(found, of_side.get(side, of_side["document"]), atol=1e-6)
    store = VectorStore(tmp_path / "store", teacher.fingerprint)
    assert len({store.key(rule, "ba") for rule in rules.values()}) == 3


def test_routes_of_other_names_are_refused(load: Load, backbones: dict[str, Path], tmp_path: Path) -> None:
    router = Router({"title": [Dense(32, 8)], "body": [Dense(32, 8)]}, default_route="title")
    modules = [Transformer(str(backbones["bert"])), Pooling(32), router]
    SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path / "model"))
    with pytest.raises(ValueError, match=r"routes texts to \['body', 'title'\], expected query and document; save"):
        _ = load(tmp_path / "model").fingerprint
