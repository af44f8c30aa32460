"""Encoders over four tiny random backbones: loading, padding, pooling, the end token, the RoPE base."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerFast

from stages.corpus.locations import local_folder
from stages.modeling.encoder import (
    Encoder,
    EncoderSettings,
    ensure_end_of_sequence,
    load_backbone,
    load_encoder,
    load_tokenizer,
    place,
    saved_encoder,
)
from stages.modeling.pooling import pool
from stages.modeling.tokenization import end_of_sequence
from stages.modeling.tokens import Tokens
from stages.teachers.fingerprint import teacher_fingerprint

PROMPTS = {"query": "query : ", "document": "document : "}
ARCHITECTURES = ["bert", "eurobert", "qwen3", "modernbert"]
# A causal backbone's first token has seen nothing, so `cls` does not fit Qwen3.
FITTING = [
    (architecture, pooling)
    for architecture in ARCHITECTURES
    for pooling in ("last", "mean", "cls")
    if (architecture, pooling) != ("qwen3", "cls")
]
fitting = pytest.mark.parametrize(("architecture", "pooling"), FITTING)

Load = Callable[..., Encoder]


@pytest.fixture
def load(backbones: dict[str, Path]) -> Load:
    def load(architecture: str, pooling: Any = "last", max_tokens: int = 32, **others: Any) -> Encoder:
        layers = others.pop("layers", None)
        settings = EncoderSettings(pooling, PROMPTS, max_tokens, **others)
        return load_encoder(str(backbones[architecture]), settings, layers)

    return load


def padded(encoder: Encoder, tokens: Tokens, side: str, extra: int = 3) -> dict[str, Tensor]:
    """A batch padded on one side, with more padding than it needs."""
    token_ids = [ids.tolist() for ids in tokens]
    longest = max(map(len, token_ids)) + extra
    pad = encoder.tokenizer.pad_token_id
    gaps = [longest - len(ids) for ids in token_ids]
    if side == "left":
        rows = [[pad] * gap + ids for gap, ids in zip(gaps, token_ids, strict=True)]
        masks = [[0] * gap + [1] * len(ids) for gap, ids in zip(gaps, token_ids, strict=True)]
    else:
        rows = [ids + [pad] * gap for gap, ids in zip(gaps, token_ids, strict=True)]
        masks = [[1] * len(ids) + [0] * gap for gap, ids in zip(gaps, token_ids, strict=True)]
    return {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(masks)}


@fitting
def test_padding_side_and_batch_change_nothing(
    load: Load, sentences: list[str], architecture: str, pooling: str
) -> None:
    encoder = load(architecture, pooling).eval()
    tokens = encoder.tokenize(sentences[:24], "query")
    assert len(set(tokens.lengths)) > 5
    with torch.inference_mode():
        right = encoder(**padded(encoder, tokens, "right"))
        left = encoder(**padded(encoder, tokens, "left"))
        alone = torch.cat([encoder(**encoder.pad(tokens[row : row + 1])) for row in range(len(tokens))])
    torch.testing.assert_close(left, right, atol=1e-6, rtol=0)
    torch.testing.assert_close(alone, right, atol=1e-6, rtol=0)
    assert torch.allclose(right.norm(dim=-1), torch.ones(len(right)))
    # Different texts give different embeddings, so the above compares something.
    assert (right @ right.T - torch.eye(len(right))).max() < 0.9999


@fitting
def test_embeddings_are_those_of_sentence_transformers(
    load: Load, sentences: list[str], tmp_path: Path, architecture: str, pooling: str
) -> None:
    encoder = load(architecture, pooling)
    encoder.save(tmp_path)
    mode: Any = {"last": "lasttoken"}.get(pooling, pooling)
    peer = SentenceTransformer(
        modules=[Transformer(str(tmp_path)), Pooling(encoder.dimensions, pooling_mode=mode), Normalize()],
        prompts=PROMPTS,
        device="cpu",
    )
    expected = peer.encode(sentences[:12], prompt_name="query")
    np.testing.assert_allclose(encoder.encode(sentences[:12], "query"), expected, atol=1e-6)


@fitting
def test_gradients_are_those_of_the_whole_backbone(
    load: Load, sentences: list[str], backbones: dict[str, Path], architecture: str, pooling: str
) -> None:
    """What the encoder leaves out of the last layer, pooling does not read."""
    encoder = load(architecture, pooling).train()
    plain = AutoModel.from_pretrained(backbones[architecture]).train()
    for module in [*encoder.modules(), *plain.modules()]:
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    batch = encoder.pad(encoder.tokenize(sentences[:6], "query"))
    weights = torch.randn(6, 32, generator=torch.Generator().manual_seed(0))
    (encoder(**batch) * weights).sum().backward()
    states = plain(**batch).last_hidden_state
    mode: Any = pooling
    (torch.nn.functional.normalize(pool(states, batch["attention_mask"], mode), dim=-1) * weights).sum().backward()
    expected = {name: value.grad for name, value in plain.named_parameters() if value.grad is not None}
    for name, value in encoder.backbone.named_parameters():
        if value.grad is not None:
            torch.testing.assert_close(value.grad, expected.pop(name), rtol=1e-3, atol=1e-5)
    assert not expected, "every parameter that pooling reads has learned"


def test_a_backbone_may_be_wrapped_again(load: Load, sentences: list[str]) -> None:
    first = load("eurobert", "last")
    expected = first.encode(sentences[:4], "query")
    second = Encoder(first.backbone, first.tokenizer, first.settings)
    np.testing.assert_allclose(second.encode(sentences[:4], "query"), expected, atol=1e-6)
    np.testing.assert_allclose(first.encode(sentences[:4], "query"), expected, atol=1e-6)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_order_of_texts_is_kept(load: Load, sentences: list[str], architecture: str) -> None:
    encoder = load(architecture)
    together = encoder.encode(sentences, "document", batch_tokens=64)
    one_by_one = np.concatenate([encoder.encode([text], "document") for text in sentences[:5]])
    np.testing.assert_allclose(together[:5], one_by_one, atol=1e-6)
    assert together.shape == (len(sentences), 32)
    assert together.dtype == np.float32


def test_pooling_by_hand() -> None:
    hidden = torch.tensor([[[1.0], [2.0], [4.0]], [[8.0], [16.0], [32.0]]])
    right, left = torch.tensor([[1, 1, 0], [1, 1, 1]]), torch.tensor([[0, 1, 1], [1, 1, 1]])
    assert pool(hidden, right, "last").flatten().tolist() == [2.0, 32.0]
    assert pool(hidden, left, "last").flatten().tolist() == [4.0, 32.0]
    assert pool(hidden, right, "cls").flatten().tolist() == [1.0, 8.0]
    assert pool(hidden, left, "cls").flatten().tolist() == [2.0, 8.0]
    assert pool(hidden, right, "mean").flatten().tolist() == [1.5, pytest.approx(56 / 3)]


def test_prompts_make_the_sides_differ_and_an_unknown_side_is_refused(load: Load) -> None:
    encoder = load("bert", "mean")
    query, document = encoder.encode(["ba be"], "query"), encoder.encode(["ba be"], "document")
    assert np.abs(query - document).max() > 1e-3
    with pytest.raises(KeyError, match=r"unknown side 'clustering'.*document, query"):
        encoder.encode(["ba"], "clustering")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_first_layers_alone(
    load: Load, sentences: list[str], tmp_path: Path, backbones: dict[str, Path], architecture: str
) -> None:
    """A cut backbone is the first layers of the whole one, and stays so when saved and loaded."""
    encoder = load(architecture, "mean", layers=(0, 1))
    whole = AutoModel.from_pretrained(backbones[architecture])
    whole_states = []
    layers = whole.layers if hasattr(whole, "layers") else whole.encoder.layer
    layers[1].register_forward_hook(lambda module, inputs, output: whole_states.append(output))
    cut_states = []
    layers = encoder.backbone.layers if hasattr(encoder.backbone, "layers") else encoder.backbone.encoder.layer
    assert len(layers) == 2
    layers[-1].register_forward_hook(lambda module, inputs, output: cut_states.append(output))
    batch = encoder.pad(encoder.tokenize(sentences[:3], "query"))
    with torch.inference_mode():
        whole.eval()(**batch)
        encoder.eval()(**batch)
    first, second = (one[0][0] if isinstance(one[0], tuple) else one[0] for one in (whole_states, cut_states))
    real = batch["attention_mask"].bool()  # what stands at padding matters to nobody
    torch.testing.assert_close(first[real], second[real])

    encoder.save(tmp_path)
    again = saved_encoder(tmp_path, None)
    assert again.backbone.config.num_hidden_layers == 2
    np.testing.assert_allclose(again.encode(sentences[:3], "query"), encoder.encode(sentences[:3], "query"), atol=1e-6)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_layer_that_is_not_there_is_refused(backbones: dict[str, Path], architecture: str) -> None:
    with pytest.raises(ValueError, match=r"the backbone has no layer \[3\], its numbers are 0 to 2"):
        load_backbone(str(backbones[architecture]), layers=(0, 3))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_weights_that_would_be_random_are_refused(
    backbones: dict[str, Path], tmp_path: Path, architecture: str
) -> None:
    shutil.copytree(backbones[architecture], tmp_path / "broken")
    file = tmp_path / "broken" / "model.safetensors"
    tensors = load_file(file)
    lost = next(name for name in tensors if ".1." in name and "pooler" not in name)
    save_file({name: tensor for name, tensor in tensors.items() if name != lost}, file, {"format": "pt"})
    with pytest.raises(ValueError, match=r"1 weights are not in the folder and would be random") as caught:
        load_backbone(str(tmp_path / "broken"))
    assert lost in str(caught.value)


def test_a_missing_pooler_is_no_fault(backbones: dict[str, Path], tmp_path: Path, sentences: list[str]) -> None:
    """Nothing reads BERT's pooler; sentence encoders are often released without its weights."""
    shutil.copytree(backbones["bert"], tmp_path / "bert")
    file = tmp_path / "bert" / "model.safetensors"
    tensors = load_file(file)
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("pooler.")}
    assert len(kept) < len(tensors)
    save_file(kept, file, {"format": "pt"})
    settings = EncoderSettings("mean", PROMPTS, 32)
    np.testing.assert_array_equal(
        load_encoder(str(tmp_path / "bert"), settings).encode(sentences[:3], "query"),
        load_encoder(str(backbones["bert"]), settings).encode(sentences[:3], "query"),
    )


def test_end_of_sequence_is_appended_also_under_truncation_and_after_saving(
    load: Load, backbones: dict[str, Path], tmp_path: Path
) -> None:
    raw = AutoTokenizer.from_pretrained(backbones["qwen3"])
    end = raw.eos_token_id
    assert raw("ba be")["input_ids"][-1] != end
    encoder = load("qwen3", max_tokens=6)
    encoder.save(tmp_path)
    by_transformers = AutoTokenizer.from_pretrained(tmp_path)
    tokens = [
        encoder.tokenize(["ba", "ba be bi bo bu ca ce"], "query"),
        saved_encoder(tmp_path, None).tokenize(["ba be bi bo bu ca ce"], "query"),
    ]
    for ids in (
        *(ids.tolist() for one in tokens for ids in one),
        by_transformers("ba be")["input_ids"],
        by_transformers("ba be bi bo bu", truncation=True, max_length=4)["input_ids"],
    ):
        assert ids[-1] == end
        assert ids.count(end) == 1
    assert tokens[0].lengths.tolist() == [4, 6]


def test_a_start_token_stays_where_the_end_token_is_added(backbones: dict[str, Path]) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = load_tokenizer(str(backbones["qwen3"]))
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|start|> $A", special_tokens=[("<|start|>", 2)]
    )
    tokenizer.add_special_tokens({"bos_token": "<|start|>"})
    before = tokenizer("ba be")["input_ids"]
    ensure_end_of_sequence(tokenizer)
    assert tokenizer("ba be")["input_ids"] == [*before, 3]


def test_a_tokenizer_that_ends_its_texts_is_left_alone(load: Load, backbones: dict[str, Path]) -> None:
    raw = AutoTokenizer.from_pretrained(backbones["bert"])
    assert load("bert", "last").tokenize(["ba be"], "query")[0].tolist() == raw("query : ba be")["input_ids"]


def test_a_tokenizer_may_end_its_texts_with_another_token_than_its_end_of_sequence(backbones: dict[str, Path]) -> None:
    """As that of Qwen3-Embedding does: its vectors are read there."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = load_tokenizer(str(backbones["qwen3"]))
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A <|pad|>", special_tokens=[("<|pad|>", tokenizer.pad_token_id)]
    )
    before = tokenizer("ba be")["input_ids"]
    ensure_end_of_sequence(tokenizer)
    assert tokenizer("ba be")["input_ids"] == before
    assert end_of_sequence(tokenizer) == before[-1] == tokenizer.pad_token_id != tokenizer.eos_token_id


def test_mean_pooling_leaves_the_tokenizer_alone(load: Load) -> None:
    encoder = load("qwen3", "mean")
    assert len(encoder.tokenize(["ba be"], "query")[0]) == 4


def test_last_token_pooling_without_an_end_token_is_refused(backbones: dict[str, Path]) -> None:
    backend = AutoTokenizer.from_pretrained(backbones["qwen3"]).backend_tokenizer
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<|pad|>")
    with pytest.raises(ValueError, match="needs a tokenizer with an end-of-sequence or separator token"):
        Encoder(load_backbone(str(backbones["qwen3"])), tokenizer, EncoderSettings("last", PROMPTS, 32))


def test_a_tokenizer_without_padding_token_pads_with_its_end_token(backbones: dict[str, Path], tmp_path: Path) -> None:
    backend = AutoTokenizer.from_pretrained(backbones["qwen3"]).backend_tokenizer
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>").save_pretrained(tmp_path / "end")
    assert load_tokenizer(str(tmp_path / "end")).pad_token == "<|end|>"
    PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(tmp_path / "none")
    with pytest.raises(ValueError, match="neither a padding nor an end-of-sequence token"):
        load_tokenizer(str(tmp_path / "none"))


@pytest.mark.parametrize("architecture", ["eurobert", "qwen3"])
def test_rope_theta_changes_the_embedding_and_is_saved(
    load: Load, sentences: list[str], tmp_path: Path, architecture: str
) -> None:
    long = sentences[:8]
    declared = load(architecture).backbone.config.rope_parameters["rope_theta"]
    as_loaded = load(architecture).encode(long, "query")
    same = load(architecture, rope_theta=float(declared)).encode(long, "query")
    np.testing.assert_allclose(same, as_loaded, atol=1e-6)
    changed = load(architecture, rope_theta=10.0)
    embeddings = changed.encode(long, "query")
    assert np.abs(embeddings - as_loaded).max() > 1e-3
    # Saved with the backbone: transformers alone gives the same states.
    changed.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["rope_parameters"]["rope_theta"] == 10.0
    np.testing.assert_allclose(saved_encoder(tmp_path, None).encode(long, "query"), embeddings, atol=1e-6)
    plain = AutoModel.from_pretrained(tmp_path).eval()
    batch = changed.pad(changed.tokenize(long, "query"))
    with torch.inference_mode():
        states = plain(**batch).last_hidden_state
    expected = torch.nn.functional.normalize(pool(states, batch["attention_mask"], "last"), dim=-1)
    np.testing.assert_allclose(expected.numpy(), embeddings, atol=1e-6)


def test_each_phase_may_read_a_saved_encoder_with_its_own_theta(
    load: Load, sentences: list[str], tmp_path: Path
) -> None:
    load("eurobert", rope_theta=10.0).save(tmp_path)
    other = saved_encoder(tmp_path, rope_theta=1000.0)
    assert other.settings.rope_theta == 1000.0
    expected = load("eurobert", rope_theta=1000.0).encode(sentences[:4], "query")
    np.testing.assert_allclose(other.encode(sentences[:4], "query"), expected, atol=1e-6)


@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
def test_rope_theta_is_refused_where_there_is_no_single_base(load: Load, architecture: str) -> None:
    with pytest.raises(ValueError, match=f"rope_theta is 10.0 but backbone '{architecture}'.*set it to null"):
        load(architecture, rope_theta=10.0)


def test_rope_theta_is_refused_where_frequencies_are_scaled(load: Load) -> None:
    """A scaled RoPE would silently become a plain one."""
    encoder = load("qwen3")
    encoder.backbone.config.rope_parameters |= {"rope_type": "linear", "factor": 4.0}
    with pytest.raises(ValueError, match=r"rope_theta is 10\.0"):
        Encoder(encoder.backbone, encoder.tokenizer, EncoderSettings("last", PROMPTS, 32, 10.0))


def test_what_is_saved_does_not_depend_on_what_was_read_last(load: Load, tmp_path: Path) -> None:
    encoder = load("eurobert")
    for name, max_tokens in (("one", 5), ("other", 7)):
        encoder.tokenize(["query : a still house"], "query", max_tokens)
        encoder.save(tmp_path / name)
    one, other = ({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("one", "other"))
    assert one == other


def test_settings_are_saved_and_loaded(load: Load, tmp_path: Path) -> None:
    encoder = load("eurobert", "mean", max_tokens=7, rope_theta=500.0)
    encoder.save(tmp_path)
    assert saved_encoder(tmp_path, None).settings == encoder.settings
    assert not [path for path in tmp_path.iterdir() if path.suffix in {".bin", ".pkl", ".pt"}]


def test_a_model_out_of_reach_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    loaders: list[Callable[[str], Any]] = [load_backbone, load_tokenizer, local_folder]
    for loader in loaders:
        with pytest.raises(FileNotFoundError, match="'nobody/no-such-model': neither a folder nor a model"):
            loader("nobody/no-such-model")


def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"'no_such_package' is not installed.*pip install no-such-package"):
        load_backbone("package:no_such_package/model")


def test_identity_follows_all_that_decides_a_vector(backbones: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "teacher"
    shutil.copytree(backbones["bert"], folder)
    first = teacher_fingerprint(str(folder), "mean", "float32")
    assert teacher_fingerprint(str(backbones["bert"]), "mean", "float32") == first, (
        "the place of a folder does not matter"
    )
    others = [("cls", "float32"), ("mean", "bfloat16")]
    digests = {first["digest"], *(teacher_fingerprint(str(folder), *how)["digest"] for how in others)}
    tensors = load_file(folder / "model.safetensors")
    name = next(iter(tensors))
    tensors[name].view(-1)[0] += 1e-3
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    changed = teacher_fingerprint(str(folder), "mean", "float32")
    assert changed["weights"] != first["weights"]
    assert changed["tokenizer"] == first["tokenizer"]
    digests.add(changed["digest"])
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["normalizer"] = None
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    digests.add(teacher_fingerprint(str(folder), "mean", "float32")["digest"])
    assert len(digests) == 5


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_half_precision_moves_vectors_a_little_and_gives_float32(
    load: Load, sentences: list[str], architecture: str
) -> None:
    encoder = load(architecture, "mean")
    batch = encoder.batch(encoder.tokenize(sentences[:8], "query"))
    exact = encoder(**batch)
    encoder.arrange("bfloat16", packing=False)
    rounded = encoder(**batch)
    assert rounded.dtype == exact.dtype == torch.float32
    torch.testing.assert_close(rounded.norm(dim=1), torch.ones(8))
    assert (rounded * exact).sum(dim=1).min() > 0.99
    assert not torch.equal(rounded, exact), "the forward pass ran in another precision"
    assert next(encoder.backbone.parameters()).dtype == torch.float32, "its weights stay whole"


def test_an_encoder_is_placed_where_its_process_computes(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load("eurobert")
    assert place(encoder, precision="bfloat16", packing=True) is encoder
    assert (encoder.precision, encoder.packing) == (torch.bfloat16, True)
    moved: list[str] = []
    encoder.to("cpu")
    monkeypatch.setattr(encoder, "to", moved.append)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    place(encoder, precision="float32", packing=False)
    assert moved == ["cuda:3"], "a process's own GPU"
    assert (encoder.precision, encoder.packing) == (torch.float32, False)


def test_texts_are_tokenised_chunk_by_chunk_into_the_same_ids(
    load: Load, sentences: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load("bert", max_tokens=8)
    expected = encoder.tokenizer([PROMPTS["query"] + text for text in sentences[:23]], truncation=True, max_length=8)
    monkeypatch.setattr("stages.modeling.encoder.CHUNK_TEXTS", 5)
    assert [ids.tolist() for ids in encoder.tokenize(sentences[:23], "query")] == expected["input_ids"]
    assert len(encoder.tokenize([], "query")) == 0
