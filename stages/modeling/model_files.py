"""Folders of models as hubs have them: what cannot be loaded, or not whole, is refused with what to do."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from stages.corpus.locations import refuse_pointer

_INDEX = "model.safetensors.index.json"
# Vocabularies that transformers reads; without any it makes an empty one for some models, and says nothing.
_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "tekken.json", "*.model", "*.tiktoken", "*.spm")
_OTHER_WEIGHTS = {
    "*.gguf": "llama.cpp",
    "*.onnx": "ONNX",
    "onnx/*.onnx": "ONNX",
    "openvino/*.xml": "OpenVINO",
    "*.h5": "TensorFlow",
    "*.msgpack": "Flax",
}


@contextmanager
def named_failures(location: str, loader: str, advice: str) -> Iterator[None]:
    """Name the model and what to do where a loader fails, each of which raises classes of its own.

    Raises:
        ValueError: it failed for another reason than memory, a disk or a network, which stay what they are.
    """
    try:
        yield
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError" or getattr(error, "errno", None):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{location}: {loader} cannot load it ({reason}); {advice}") from None


def check_backbone(location: str, folder: Path) -> None:
    """Check the files of a backbone in the format of transformers, before any is loaded.

    Raises:
        ValueError: it has no whole weights as safetensors, or they are those of an adapter, or quantised.
    """
    config = read_config(location, folder / "config.json", folder / "adapter_config.json")
    if "quantization_config" in config:
        method = config["quantization_config"].get("quant_method", "an unknown method")
        raise ValueError(
            f"{location}: its weights are quantised ({method}), expected float weights; take the model that "
            "was quantised, or serve it (embed.teacher.kind: endpoint)"
        )
    if not config.get("model_type"):
        raise ValueError(
            f'{location}: its config.json has no "model_type", which names the architecture; add it, as '
            '"model_type": "bert"'
        )
    check_weights(location, folder)


def read_config(location: str, file: Path, adapter: Path | None = None) -> dict[str, Any]:
    """Read a JSON object from a model's folder.

    Raises:
        ValueError: it is missing or damaged, or an adapter's config stands beside it, whose base would be loaded.
    """
    if adapter is not None and adapter.exists():
        base = read_config(location, adapter).get("base_model_name_or_path")
        raise ValueError(
            f'{location}: holds an adapter for {base}, expected whole weights; merge it: python -c "from peft import '
            f"AutoPeftModelForFeatureExtraction as P; P.from_pretrained('{file.parent}').merge_and_unload()"
            ".save_pretrained('MERGED')\", copy the tokenizer to MERGED, and name MERGED"
        )
    if not file.is_file():
        raise ValueError(
            f"{location}: has no {file.name}; give the folder of a model as the hub has it, with all files"
        )
    refuse_pointer(file)
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{location}: {file.name} is no JSON ({error}); copy it again") from None
    if not isinstance(config, dict | list):
        raise ValueError(f"{location}: {file.name} holds a {type(config).__name__}, expected an object; copy it again")
    return config  # type: ignore[return-value]  # modules.json is a list


def check_weights(location: str, folder: Path) -> None:
    """Check that a folder has all its weights as safetensors; raises like `check_backbone`."""
    if (folder / "model.safetensors").is_file():
        files = [folder / "model.safetensors"]
    elif (folder / _INDEX).is_file():
        files = sorted({folder / name for name in read_config(location, folder / _INDEX)["weight_map"].values()})
    else:
        raise ValueError(f"{location}: {_without_weights(location, folder)}")
    if missing := [file.name for file in files if not file.is_file()]:
        raise ValueError(f"{location}: has no {missing}, which {_INDEX} names; copy all files of the model")
    for file in files:
        refuse_pointer(file)
        try:
            with safe_open(file, "pt"):
                pass
        except SafetensorError as error:
            raise ValueError(f"{location}: {file.name} is damaged or cut off ({error}); copy it again") from None


def _without_weights(location: str, folder: Path) -> str:
    """Say what a folder has instead of weights that can be loaded, and what to do."""
    if pickles := sorted(path.name for path in folder.glob("pytorch_model*.bin")):
        return f"{pickles[0]} is a pickle, which is never loaded; {conversion(folder)}"
    if shards := sorted(path.name for path in folder.glob("*.safetensors")):
        return f"found {shards[:3]}, expected model.safetensors or {_INDEX}; copy all files of the model"
    if folder.parent.name == "snapshots":  # The hub's cache, to which no pickle is fetched.
        return (
            "the hub has no model.safetensors of it, and a pickle is never loaded; take another model, or fetch all "
            f"its files (hf download {location} --local-dir FOLDER) and name FOLDER, whose pickle can be converted"
        )
    kinds = sorted({kind for pattern, kind in _OTHER_WEIGHTS.items() if any(folder.glob(pattern))})
    return (
        f"found {'weights for ' + ', '.join(kinds) + ' only' if kinds else 'no weights'}, expected model.safetensors; "
        "take the model's folder with such weights, or serve the model (embed.teacher.kind: endpoint)"
    )


def conversion(folder: Path) -> str:
    """Say how pickled weights in a folder become safetensors, by a command that runs no code of the pickle."""
    return (
        'convert to safetensors: python -c "import glob, torch; from safetensors.torch import save_file; save_file('
        f"{{k: v.clone() for f in glob.glob('{folder}/pytorch_model*.bin') for k, v in torch.load(f, weights_only=True)"
        f".items()}}, '{folder}/model.safetensors', {{'format': 'pt'}})\""
    )


def check_tokenizer(location: str, folder: Path) -> None:
    """Check that a folder has a vocabulary.

    Raises:
        ValueError: it has none, or one that is not whole.
    """
    vocabularies = [path for pattern in _VOCABULARIES for path in sorted(folder.glob(pattern))]
    if not vocabularies:
        raise ValueError(
            f"{location}: has no vocabulary, expected tokenizer.json or one of {list(_VOCABULARIES[1:])}; "
            "copy the files of the tokenizer"
        )
    for file in vocabularies:
        refuse_pointer(file)
        if file.suffix == ".json":
            read_config(location, file)


def refuse_own_code(location: str, folder: Path) -> None:
    """Refuse a teacher that names code of its own, for which transformers would silently take a class of its own.

    Raises:
        ValueError: a config has an `auto_map` for the model or the tokenizer.
    """
    for name in ("config.json", "tokenizer_config.json"):
        named = read_config(location, folder / name).get("auto_map") if (folder / name).is_file() else None
        if named:
            raise ValueError(
                f"{location}: {name} names code of its own (auto_map), which is never run, and transformers' own class "
                "may give other vectors; take another model or serve it (embed.teacher.kind: endpoint); if its "
                f"card says that it works without trust_remote_code, copy the folder and delete auto_map from {name}"
            )
