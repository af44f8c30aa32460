"""Folders as hubs have held them for years: each gives the teacher's vectors, or is refused with what to do."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from transformers import AutoModel, T5Config, T5Model

from stages.recipe.embed import SentenceTransformerFolder, TransformerFolder
from stages.recipe.recipe import Recipe
from stages.teachers.sentence_transformer import SentenceTransformerTeacher
from stages.teachers.teacher import ReadingRule
from stages.teachers.transformer import TransformerTeacher
from tests.conftest import save_tokenizer

TEXTS = ["ba be bi", "ca ce ci co"]
RULE = ReadingRule("", 24, 24)
WEIGHTS = "model.safetensors"
KINDS = ("transformer", "sentence_transformer")
Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def folders(backbones: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A BERT, and the same with pooling, a Dense layer to 8 dimensions and normalisation; by kind."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("folders") / "sentence"
    modules = [Transformer(str(backbones["bert"])), Pooling(32, pooling_mode="cls"), Dense(32, 8), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder))
    return {"transformer": backbones["bert"], "sentence_transformer": folder}


@pytest.fixture
def teacher(short_recipe: dict[str, Any]) -> Callable[[str, Path], Any]:
    def load(kind: str, folder: Path) -> Any:
        recipe = Recipe.model_validate(short_recipe)
        prompts = {"query": "", "document": "", "clustering": ""}
        section = recipe.embed.model_copy(update={"prompts": prompts, "max_tokens": 24, "batch_tokens": 96})
        engine = recipe.engine.model_copy(update={"precision": "float32", "threads": 1})
        if kind == "transformer":
            return TransformerTeacher(TransformerFolder(kind=kind, path=str(folder), pooling="mean"), section, engine)
        return SentenceTransformerTeacher(SentenceTransformerFolder(kind=kind, path=str(folder)), section, engine)

    return load


def vectors(teacher: Any) -> np.ndarray:
    _ = teacher.fingerprint  # which the stage asks first
    found: np.ndarray = teacher.embed(TEXTS, RULE)
    return found


def edit(file: Path, **values: Any) -> None:
    """Set keys of a JSON file; None removes a key."""
    content = json.loads(file.read_text()) | values
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def renamed(rename: Callable[[str], str]) -> Change:
    def change(folder: Path) -> None:
        save_file({rename(key): value for key, value in load_file(folder / WEIGHTS).items()}, folder / WEIGHTS)

    return change


def moved(name: str) -> Change:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / WEIGHTS).rename(folder / name)

    return change


def without_a_weight(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    del tensors["encoder.layer.1.output.dense.weight"]
    save_file(tensors, folder / WEIGHTS)


def in_shards(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    names = {key: f"model-0000{1 + row % 2}-of-00002.safetensors" for row, key in enumerate(tensors)}
    for name in set(names.values()):
        save_file({key: tensors[key] for key in names if names[key] == name}, folder / name)
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    (folder / WEIGHTS).unlink()


def in_shards_without(pattern: str) -> Change:
    def change(folder: Path) -> None:
        in_shards(folder)
        next(folder.glob(pattern)).unlink()

    return change


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def pointer(name: str) -> Change:
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{0:064d}\nsize 12345\n"
    return lambda folder: (folder / name).write_text(text) and None


def cut_off(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])


def with_vocabulary_txt(folder: Path) -> None:
    words = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "vocab.txt").write_text("\n".join(sorted(words, key=words.__getitem__)) + "\n")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')


def without_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*.json"):
        file.unlink()


def configured(**values: Any) -> Change:
    return lambda folder: edit(folder / "config.json", **values)


READ: dict[str, Change] = {
    "a head's prefix": renamed(lambda key: f"bert.{key}"),
    "names of the first years": renamed(
        lambda key: key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    ),
    "shards": in_shards,
    "vocab.txt": with_vocabulary_txt,
    "no pooler": lambda folder: save_file(
        {key: value for key, value in load_file(folder / WEIGHTS).items() if "pooler" not in key}, folder / WEIGHTS
    ),
}
REFUSED: dict[str, tuple[Change, str]] = {
    "pickle": (pickled, r"pytorch_model\.bin is a pickle, .*convert to safetensors: python -c "),
    "TensorFlow": (moved("tf_model.h5"), r"found weights for TensorFlow only, expected model\.safetensors; take"),
    "Flax": (moved("flax_model.msgpack"), "found weights for Flax only"),
    "ONNX": (moved("onnx/model.onnx"), "found weights for ONNX only"),
    "GGUF": (moved("model-q8_0.gguf"), r"found weights for llama\.cpp only.*or serve the model"),
    "nothing": (lambda folder: (folder / WEIGHTS).unlink(), r"found no weights, expected model\.safetensors"),
    "a weight is missing": (without_a_weight, r"1 weights are not in the folder and would be random: \['encoder\.la"),
    "another prefix": (renamed(lambda key: f"towers.{key}"), "weights are not in the folder and would be random"),
    "a shard is missing": (in_shards_without("*2-of*"), r"has no \['model-00002-of-00002\.safetensors'\], which"),
    "no index": (in_shards_without("*.index.json"), r"found \['model-00001.*expected .*index\.json; copy all"),
    "LFS": (pointer(WEIGHTS), r"model\.safetensors: is a Git LFS pointer.*git lfs pull"),
    "LFS tokenizer": (pointer("tokenizer.json"), r"tokenizer\.json: is a Git LFS pointer.*git lfs pull"),
    "LFS config": (pointer("config.json"), r"config\.json: is a Git LFS pointer.*git lfs pull"),
    "cut off": (cut_off, r"model\.safetensors is damaged or cut off .*copy it again"),
    "no model_type": (configured(model_type=None), 'config.json has no "model_type".*add it'),
    "a type of the future": (configured(model_type="futurebert"), "cannot load it .*futurebert.*another model"),
    "code of its own": (configured(auto_map={"AutoModel": "modeling_x.Bert"}), "auto_map.*never run.*take another"),
    "gptq": (configured(quantization_config={"quant_method": "gptq", "bits": 4}), r"are quantised \(gptq\).*take the"),
    "no config": (lambda folder: (folder / "config.json").unlink(), r"has no config\.json; give the folder"),
    "half a config": (lambda folder: (folder / "config.json").write_text("{") and None, r"config\.json is no JSON"),
    "a tokenizer of the future": (lambda folder: edit(folder / "tokenizer.json", model={"type": "x"}), "cannot load "),
    "no tokenizer": (without_tokenizer, r"has no vocabulary, expected tokenizer\.json or .*copy"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", READ)
def test_layouts_that_give_the_same_vectors(
    folders: dict[str, Path], teacher: Any, tmp_path: Path, layout: str, kind: str
) -> None:
    shutil.copytree(folders[kind], tmp_path / "model")
    READ[layout](tmp_path / "model")
    found = vectors(teacher(kind, tmp_path / "model"))
    np.testing.assert_allclose(found, vectors(teacher(kind, folders[kind])), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", REFUSED)
def test_layouts_that_are_refused(
    folders: dict[str, Path], teacher: Any, tmp_path: Path, layout: str, kind: str
) -> None:
    shutil.copytree(folders[kind], tmp_path / "model")
    change, message = REFUSED[layout]
    change(tmp_path / "model")
    with pytest.raises(ValueError, match=message) as refused:
        vectors(teacher(kind, tmp_path / "model"))
    assert str(refused.value).startswith(str(tmp_path / "model"))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_half_precision_are_computed_in_that_of_the_recipe(
    folders: dict[str, Path], teacher: Any, tmp_path: Path, kind: str
) -> None:
    shutil.copytree(folders[kind], tmp_path / "half")
    halved = {key: value.bfloat16() for key, value in load_file(folders[kind] / WEIGHTS).items()}
    save_file(halved, tmp_path / "half" / WEIGHTS)
    edit(tmp_path / "half/config.json", dtype="bfloat16")
    shutil.copytree(folders[kind], tmp_path / "float")
    save_file({key: value.float() for key, value in halved.items()}, tmp_path / "float" / WEIGHTS)
    found = vectors(teacher(kind, tmp_path / "half"))
    np.testing.assert_allclose(found, vectors(teacher(kind, tmp_path / "float")), atol=1e-6)


@pytest.mark.parametrize("module", ["", "2_Dense"])
def test_the_command_that_converts_a_pickle_makes_the_same_teacher(
    folders: dict[str, Path], teacher: Any, tmp_path: Path, module: str
) -> None:
    """Weights of a Dense layer in a pickle once gave other weights the same identity."""
    shutil.copytree(folders["sentence_transformer"], tmp_path / "model")
    pickled(tmp_path / "model" / module)
    with pytest.raises(ValueError, match=rf"{module}.*pytorch_model\.bin is a pickle") as refused:
        vectors(teacher("sentence_transformer", tmp_path / "model"))
    exec(shlex.split(str(refused.value).partition("to safetensors: ")[2])[2], {})  # noqa: S102
    found = vectors(teacher("sentence_transformer", tmp_path / "model"))
    own = vectors(teacher("sentence_transformer", folders["sentence_transformer"]))
    np.testing.assert_array_equal(found, own)


def test_a_hub_without_safetensors_is_told(folders: dict[str, Path], teacher: Any, tmp_path: Path) -> None:
    folder = tmp_path / "models--x--y/snapshots/0123"
    shutil.copytree(folders["transformer"], folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(ValueError, match=r"the hub has no model\.safetensors of it, .*hf download .*can be converted"):
        vectors(teacher("transformer", folder))


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_is_refused_with_the_command_that_merges_it(
    folders: dict[str, Path], teacher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Its base would be loaded from elsewhere, and be no part of the identity."""
    shutil.copytree(folders[kind], tmp_path / "model")
    for name in ("config.json", WEIGHTS):
        (tmp_path / "model" / name).unlink()
    adapted = get_peft_model(
        AutoModel.from_pretrained(folders["transformer"]),
        LoraConfig(r=4, target_modules=["query"], init_lora_weights=False),
    )
    adapted.save_pretrained(str(tmp_path / "model"))
    with pytest.raises(ValueError, match=r"holds an adapter for .*bert, expected whole weights; merge it") as refused:
        vectors(teacher(kind, tmp_path / "model"))
    monkeypatch.chdir(tmp_path)
    exec(shlex.split(re.findall('python -c ".*?"', str(refused.value))[0])[2], {})  # noqa: S102
    assert set(load_file(tmp_path / "MERGED" / WEIGHTS)) == set(load_file(folders["transformer"] / WEIGHTS))


def test_an_encoder_with_a_decoder_is_refused(teacher: Any, tmp_path: Path) -> None:
    config = T5Config(vocab_size=107, d_model=32, d_kv=16, d_ff=48, num_layers=1, num_heads=2)
    T5Model(config).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    with pytest.raises(ValueError, match=r"'t5' has an encoder and a decoder, .*kind: sentence_transformer"):
        vectors(teacher("transformer", tmp_path))


def test_modules_beside_a_backbone_are_not_left_out_unsaid(
    folders: dict[str, Path], teacher: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match=r"leaves out, \['Dense'\]; set the kind to sentence_transformer"):
        vectors(teacher("transformer", folders["sentence_transformer"]))
    shutil.copytree(folders["sentence_transformer"], tmp_path / "model")
    modules = json.loads((tmp_path / "model/modules.json").read_text())
    (tmp_path / "model/modules.json").write_text(json.dumps(modules[:2]))
    settings = {"prompts": {"query": "query: ", "document": ""}, "similarity_fn_name": "dot"}
    edit(tmp_path / "model/config_sentence_transformers.json", **settings)
    vectors(teacher("transformer", tmp_path / "model"))
    told = capsys.readouterr().err
    assert "states the pooling cls, embed.teacher.pooling is 'mean'" in told
    assert "has a prompt 'query', 'query: ', that embed.prompts does not use" in told
    assert "compares vectors by 'dot'; here they get length 1" in told
    edit(tmp_path / "model/1_Pooling/config.json", include_prompt=False)
    with pytest.raises(ValueError, match=r"leaves the instruction out.*set the kind to sentence_transformer"):
        vectors(teacher("transformer", tmp_path / "model"))


def old_layout(folder: Path) -> None:
    """Sentence Transformers 0.4: the backbone in a folder of its own, classes and settings of that time."""
    modules = json.loads((folder / "modules.json").read_text())
    for module in modules:
        module["type"] = f"sentence_transformers.models.{module['type'].rpartition('.')[2]}"
    modules[0]["path"] = "0_Transformer"
    (folder / "0_Transformer").mkdir()
    for file in [file for file in folder.iterdir() if file.is_file()]:
        file.rename(folder / "0_Transformer" / file.name)
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "0_Transformer/sentence_bert_config.json").write_text('{"max_seq_length": 48}')
    flags = {"cls_token": True, "mean_tokens": False, "max_tokens": False, "mean_sqrt_len_tokens": False}
    pooling = {"word_embedding_dimension": 32, **{f"pooling_mode_{name}": value for name, value in flags.items()}}
    (folder / "1_Pooling/config.json").write_text(json.dumps(pooling))


def test_a_folder_of_the_first_years_gives_the_same_vectors(
    folders: dict[str, Path], teacher: Any, tmp_path: Path
) -> None:
    shutil.copytree(folders["sentence_transformer"], tmp_path / "model")
    old_layout(tmp_path / "model")
    found = vectors(teacher("sentence_transformer", tmp_path / "model"))
    own = vectors(teacher("sentence_transformer", folders["sentence_transformer"]))
    np.testing.assert_allclose(found, own, atol=1e-6)


def listing(kind: str) -> Change:
    def change(folder: Path) -> None:
        modules = json.loads((folder / "modules.json").read_text())
        modules[2]["type"] = kind
        (folder / "modules.json").write_text(json.dumps(modules))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "modules.json").unlink(), r"has no modules\.json.*kind to transformer, with the poo"),
        (listing("custom_st.Layer"), r"lists a module custom_st\.Layer, which needs code of its own.*take another"),
        (listing("sentence_transformers.models.BERT"), r"cannot load it .*BERT.*save it again"),
        (listing("sentence_transformers.sparse_encoder.models.SpladePooling"), "expected a model that gives one dense"),
        (lambda folder: edit(folder / "config_sentence_transformers.json", model_type="CrossEncoder"), "is a CrossEnc"),
        (
            lambda folder: edit(folder / "2_Dense/config.json", activation_function="os.system"),
            r"activation os\.system",
        ),
        (lambda folder: (folder / "2_Dense" / WEIGHTS).unlink(), "module 2_Dense: found no weights"),
        (lambda folder: shutil.rmtree(folder / "1_Pooling"), "module 1_Pooling: there is no such folder.*copy all"),
    ],
)
def test_modules_that_cannot_be_loaded_are_named(
    folders: dict[str, Path], teacher: Any, tmp_path: Path, change: Change, message: str
) -> None:
    shutil.copytree(folders["sentence_transformer"], tmp_path / "model")
    change(tmp_path / "model")
    with pytest.raises(ValueError, match=message):
        vectors(teacher("sentence_transformer", tmp_path / "model"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name", ["merges.txt", "vocab.json", "spiece.model", "added_tokens.json", "chat_template.jinja"]
)
def test_every_file_that_loading_may_read_is_part_of_the_identity(
    folders: dict[str, Path], teacher: Any, tmp_path: Path, name: str, kind: str
) -> None:
    folder = tmp_path / "onnx/.models/model"  # the names of the folders above it say nothing
    shutil.copytree(folders[kind], folder)
    digests = [teacher(kind, folder).fingerprint["digest"]]
    for content in ("{}", '{"ba": 5}'):
        (folder / name).write_text(content)
        digests.append(teacher(kind, folder).fingerprint["digest"])
    (folder / name).rename(folder / f"old-{name}")
    digests.append(teacher(kind, folder).fingerprint["digest"])
    assert len(set(digests)) == 4
    (folder / f"old-{name}").unlink()
    (folder / "README.md").write_text("words about it")
    assert teacher(kind, folder).fingerprint["digest"] == digests[0]
