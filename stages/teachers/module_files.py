"""The modules that a folder in the format of Sentence Transformers lists, checked before any is loaded."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.modeling.model_files import (
    check_backbone,
    check_tokenizer,
    check_weights,
    read_config,
    refuse_own_code,
)

BACKBONES = ("Transformer", "CLIPModel")
ROUTERS = ("Router", "Asym")
_WITH_WEIGHTS = ("Dense", "LayerNorm", "WordEmbeddings", "CNN", "LSTM", "WeightedLayerPooling", "StaticEmbedding")
_WITHOUT_FILES = ("Normalize", "Dropout")
_OF_A_BACKBONE = ("Transformer", "Pooling", *_WITHOUT_FILES)
# Packages of models that give no single dense vector.
_OTHER_MODELS = (".sparse_encoder.", ".cross_encoder.", ".multi_vector_encoder.")


@dataclass(frozen=True)
class ListedModule:
    """A module of a model.

    Attributes
    ----------
    kind
        Name of its class.
    place
        Its number in the model; inside a router also the route, and its number there.
    """

    kind: str
    folder: Path
    place: tuple[int | str, ...]

    @property
    def config(self) -> dict[str, Any]:
        """Its settings; empty where it has none."""
        file = self.folder / "config.json"
        return read_config(str(self.folder), file) if file.is_file() else {}


def listed_modules(location: str, folder: Path) -> list[ListedModule]:
    """List the modules of a model, those inside a router included.

    Raises:
        ValueError: the folder has another format, or a module cannot be loaded, or not whole.
    """
    if not (folder / "modules.json").is_file():
        raise ValueError(
            f"{location}: has no modules.json, so it is no folder in the format of Sentence Transformers; set "
            "embed.teacher.kind to transformer, with the pooling that the model's card names"
        )
    settings = folder / "config_sentence_transformers.json"
    kind = read_config(location, settings).get("model_type", "SentenceTransformer") if settings.is_file() else None
    if kind not in (None, "SentenceTransformer"):
        raise ValueError(f"{location}: is a {kind}, expected a SentenceTransformer, which gives one dense vector")
    listed: Any = read_config(location, folder / "modules.json")
    modules: list[ListedModule] = []
    for number, entry in enumerate(listed):
        modules += _module(location, entry["type"], folder / entry["path"], (number,))
    return modules


def check_plain_backbone(location: str, folder: Path, pooling: str) -> None:
    """Check the folder of a backbone with a pooling; say where the pooling that the folder states is another.

    Raises:
        ValueError: it cannot be loaded whole, or it lists further modules that change the vectors.
    """
    _check_backbone_files(location, folder)
    if not (folder / "modules.json").is_file():
        return
    modules = listed_modules(location, folder)
    if further := [module.kind for module in modules if module.kind not in _OF_A_BACKBONE]:
        raise ValueError(
            f"{location}: has modules that embed.teacher.kind transformer leaves out, {further}; set the kind to "
            "sentence_transformer"
        )
    for config in (module.config for module in modules if module.kind == "Pooling"):
        if config.get("include_prompt") is False:
            raise ValueError(
                f"{location}: its pooling leaves the instruction out, which embed.teacher.kind transformer does not; "
                "set the kind to sentence_transformer"
            )
        own = config.get("pooling_mode") or [name for name, value in config.items() if "mode" in name and value is True]
        if pooling not in str(own):
            print(f"{location} states the pooling {own}, embed.teacher.pooling is {pooling!r}", file=sys.stderr)


def tell_unused_settings(location: str, folder: Path, prompts: Iterable[str]) -> None:
    """Say which instructions and comparison a model's folder states that the recipe does not use."""
    file = folder / "config_sentence_transformers.json"
    settings = read_config(location, file) if file.is_file() else {}
    for name, prompt in (settings.get("prompts") or {}).items():
        if prompt and prompt not in prompts:
            print(f"{location} has a prompt {name!r}, {prompt!r}, that embed.prompts does not use", file=sys.stderr)
    if (comparison := settings.get("similarity_fn_name")) not in (None, "cosine"):
        print(f"{location} compares vectors by {comparison!r}; here they get length 1, as for cosine", file=sys.stderr)


def _module(location: str, path: str, folder: Path, place: tuple[int | str, ...]) -> Iterator[ListedModule]:
    """Check a module by the path of its class and its folder, and yield it, or the modules that it routes to."""
    if not path.startswith("sentence_transformers."):
        raise ValueError(
            f"{location}: lists a module {path}, which needs code of its own, and that is never run; take another "
            "model, or serve it (embed.teacher.kind: endpoint)"
        )
    if any(part in path for part in _OTHER_MODELS):
        raise ValueError(f"{location}: lists a module {path}, expected a model that gives one dense vector")
    module = ListedModule(path.rpartition(".")[2], folder, place)
    yield module
    if module.kind in ROUTERS:
        file = folder / "router_config.json"
        config = read_config(location, file if file.is_file() else folder / "config.json")
        if not {"query", "document"} <= config["structure"].keys():
            raise ValueError(
                f"{location}: routes texts to {sorted(config['structure'])}, expected query and document; save it with "
                "these names, or serve it (embed.teacher.kind: endpoint)"
            )
        for route, names in config["structure"].items():
            for number, name in enumerate(names):
                yield from _module(location, config["types"][name], folder / name, (*place, route, number))
        return
    _check_files(location, module)


def _check_backbone_files(location: str, folder: Path) -> None:
    check_backbone(location, folder)
    check_tokenizer(location, folder)
    refuse_own_code(location, folder)


def _check_files(location: str, module: ListedModule) -> None:
    folder = module.folder
    if module.kind in BACKBONES:
        _check_backbone_files(location, folder)
        return
    name = f"{location}, module {folder.name}"
    if module.kind not in _WITHOUT_FILES and not folder.is_dir():
        raise ValueError(f"{name}: there is no such folder, which modules.json lists; copy all files of the model")
    if module.kind in _WITH_WEIGHTS:
        check_weights(name, folder)
    activation = module.config.get("activation_function", "torch.")
    if isinstance(activation, str) and not activation.startswith("torch."):
        raise ValueError(f"{name}: has an activation {activation}, which needs code that is never run; serve the model")
