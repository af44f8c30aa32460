"""The full-size recipes against the paper's table A1, and a dry run of each through the real stages.

The dry run keeps the recipe and the architectures. It changes where models and data sets lie (folders written here, in
the hub's own formats, with random weights and made-up text) and what this machine has no room or time for: MACHINE.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML

from stages.recipe.distill import Projection
from stages.recipe.recipe import Recipe
from stages.recipe.recipe import read as read_recipe

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "deploy/recipes"
TASKS = ("retrieval", "text-matching", "clustering", "classification")

# Table A1 by phase: steps, devices x batch (of long texts), tokens (of long texts), learning rate, RoPE theta.
# Batches of the distilling phases are pairs.
TABLE_A1: dict[str, dict[str, tuple[int, int, int | None, int, int | None, float, float]]] = {
    "nano": {
        "distill": (50_000, 8 * 1024, None, 512, None, 1e-4, 250e3),
        "retrieval": (8_000, 2 * 384, 2 * 96, 384, 4096, 2e-5, 250e3),
        "text-matching": (20_000, 256, None, 384, None, 5e-5, 250e3),
        "clustering": (20_000, 1024, None, 512, None, 1e-5, 25e3),
        "classification": (30_000, 4 * 128, None, 512, None, 4e-4, 1e6),
    },
    "small": {
        "distill": (50_000, 8 * 512, None, 512, None, 1e-4, 1e6),
        "extend": (6_500, 2 * 64, None, 4096, None, 1e-4, 500e3),
        "retrieval": (8_000, 2 * 256, 2 * 64, 384, 4096, 2e-5, 1e6),
        "text-matching": (20_000, 256, None, 384, None, 5e-5, 1e6),
        "clustering": (20_000, 512, None, 512, None, 1e-5, 100e3),
        "classification": (30_000, 4 * 64, None, 512, None, 4e-4, 3.5e6),
    },
}
# Architectures as the hub's config.json has them: full sizes.
CONFIGS: dict[str, dict[str, Any]] = {
    "EuroBERT/EuroBERT-210m": {
        "model_type": "eurobert", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
        "num_key_value_heads": 12, "intermediate_size": 3072, "vocab_size": 128_256, "max_position_embeddings": 8192,
        "rope_theta": 250_000, "tie_word_embeddings": False,
    },
    "Qwen/Qwen3-0.6B-Base": {
        "model_type": "qwen3", "hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16,
        "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 3072, "vocab_size": 151_936,
        "max_position_embeddings": 32_768, "rope_theta": 1_000_000, "tie_word_embeddings": True,
    },
    "Qwen/Qwen3-Embedding-4B": {
        "model_type": "qwen3", "hidden_size": 2560, "num_hidden_layers": 36, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 9728, "vocab_size": 151_665,
        "max_position_embeddings": 40_960, "rope_theta": 1_000_000, "tie_word_embeddings": True,
    },
}  # fmt: skip
each_model = pytest.mark.parametrize("model", TABLE_A1)


def recipe_of(model: str) -> Recipe:
    return read_recipe(RECIPES / f"{model}.yaml")


@pytest.mark.parametrize("file", sorted(RECIPES.glob("*.yaml")), ids=lambda file: file.name)
def test_recipes_are_valid_and_named_as_their_file(file: Path) -> None:
    recipe = read_recipe(file)
    assert recipe.name == recipe.promote.registered_model == f"stillhouse-{file.stem}"


def test_every_full_size_recipe_is_checked_here() -> None:
    assert {file.stem for file in RECIPES.glob("*.yaml")} == {*TABLE_A1, "pico-bert"}


@each_model
def test_phases_are_those_of_table_a1(model: str) -> None:
    recipe = recipe_of(model)
    phases: dict[str, Any] = {"distill": recipe.distill, "extend": recipe.extend}
    phases |= {task: getattr(recipe.adapt, task.replace("-", "_")) for task in TASKS}
    assert {name for name, phase in phases.items() if phase.training.steps} == set(TABLE_A1[model])
    for name, (steps, batch, long_batch, tokens, long_tokens, learning_rate, theta) in TABLE_A1[model].items():
        phase = phases[name]
        assert phase.training.steps == steps, name
        assert phase.training.learning_rate == learning_rate, name
        assert phase.rope_theta == theta, name
        expected = {(tokens, batch)} | ({(long_tokens, long_batch)} if long_batch else set())
        assert set(batches_of(name, phase, recipe.engine.processes)) == expected, name


def batches_of(name: str, phase: Any, processes: int) -> Iterator[tuple[int, int]]:
    """(tokens, pairs or rows a step over all processes) of a phase, or of each source that it draws."""
    if hasattr(phase, "mixture"):
        yield from ((draw.max_tokens, draw.batch_size * processes) for draw in phase.mixture)
    else:
        texts = name in ("distill", "clustering")  # their rows are texts, two of which are a pair
        yield phase.max_tokens, phase.training.batch_size * processes // (2 if texts else 1)


@each_model
def test_losses_models_and_inference_are_the_papers(model: str) -> None:
    recipe = recipe_of(model)
    distill, adapt = recipe.distill, recipe.adapt
    dims = {"nano": (32, 64, 128, 256, 512, 768), "small": (32, 64, 128, 256, 512, 768, 1024)}[model]
    student = {"nano": "EuroBERT/EuroBERT-210m", "small": "Qwen/Qwen3-0.6B-Base"}[model]
    assert distill.backbone.path == student
    assert distill.backbone.architecture == "pretrained"
    assert distill.backbone.layers is None, "all of them"
    assert recipe.embed.teacher.path == "Qwen/Qwen3-Embedding-4B"
    assert recipe.embed.teacher.pooling == distill.pooling == "last"
    assert distill.matryoshka_dims == recipe.evaluate.truncate_dims == dims
    assert max(dims) == CONFIGS[student]["hidden_size"]
    assert distill.rope_theta == CONFIGS[student]["rope_theta"], "stage 1 keeps the untouched backbone's"
    assert distill.prompts == {"query": "Query: ", "document": "Document: "}
    assert distill.objective == "embedding_distillation"
    assert distill.projection == Projection(side="student", trained=True)
    assert not distill.freeze_token_embeddings
    assert "retrieve relevant passages that answer the query" in recipe.embed.prompts["query"]
    assert "Identify the topic or theme of the given document:" in recipe.embed.prompts["clustering"]
    adapters = (adapt.retrieval, adapt.text_matching, adapt.clustering, adapt.classification)
    assert {(adapter.lora.rank, adapter.lora.alpha) for adapter in adapters} == {(32, 32)}
    assert adapt.retrieval.weights.model_dump() == {"info_nce": 1, "distillation": 2, "spread_out": 1}
    assert adapt.text_matching.weights.model_dump() == {"cosent": 1, "info_nce": 1, "distillation": 2}
    assert adapt.classification.weights.model_dump() == {"info_nce": 1, "relational": 20}
    assert adapt.classification.num_negatives == 7
    assert adapt.retrieval.temperature == adapt.text_matching.temperature == adapt.classification.temperature == 0.02
    assert adapt.text_matching.cosent_temperature == 0.05
    inference = {"nano": (8_192, 1e6), "small": (32_768, 3.5e6)}[model]
    assert (recipe.quantize.max_tokens, recipe.quantize.rope_theta) == inference


@each_model
def test_parameters_are_as_many_as_the_paper_counts(model: str) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModel

    recipe = recipe_of(model)
    lora = recipe.adapt.retrieval.lora
    with torch.device("meta"):
        backbone = AutoModel.from_config(AutoConfig.for_model(**CONFIGS[recipe.distill.backbone.path]))
        base = backbone.num_parameters()
        adapted = get_peft_model(backbone, LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules="all-linear"))
    adapter = sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
    # The paper has 6.7 M for nano, without rounding.
    assert (round(base / 1e6), round(adapter / 1e6, 1)) == {"nano": (212, 6.8), "small": (596, 20.2)}[model]


@each_model
def test_sources_are_data_sets_of_the_hub_with_their_licences(model: str) -> None:
    for source in recipe_of(model).curate.sources:
        assert len(source.files) == 1
        assert source.files[0].startswith("hub:")
        assert source.files[0].count("/") == 1
        assert source.reader.startswith("rows.")
        assert "split" in source.options
        assert source.license


# The dry run

# What this machine has no room or time for, by the name of the key: the value, or what becomes of it.
MACHINE: dict[str, Any] = {
    "threads": 1,
    "processes": 1,
    "precision": "float32",
    "compile": False,
    "micro_batch_tokens": 4096,
    "batch_tokens": lambda tokens: tokens and 4096,
    "splits": lambda splits: {name: min(share * 1000, 0.3) if share < 1 else share for name, share in splits.items()},
    "max_tokens": lambda tokens: {512: 24, 384: 20, 4096: 48, 8192: 64, 32_768: 64}[tokens],
    "window_tokens": 48,
    "max_truncated_share": 1.0,
    "steps": lambda steps: min(steps, 2),
    "continued_steps": 1,
    "batch_size": lambda texts: texts and min(texts, 4),
    "evaluate_every": 2,
    "checkpoint_every": 1,
    "num_negatives": lambda number: number if number == 7 else 1,  # the seven of classification are drawn, not mined
    "relative_margin": 0.0,  # a random teacher finds all texts alike
    "num_texts": 64,
    "num_calibration_texts": 16,
    "top1": 0.5,  # a random student finds all texts alike, too
    "spearman": 0.5,
    "lengths": [160, 192],
    "num_documents": 3,
    "num_resamples": 20,
    "min_confidence": 1.0,  # syllables are in no language
}
ROWS = 24
# The students keep their width, which Matryoshka prefixes cut; the teacher's need only be more. Heads stay in groups.
FEW_HEADS = {"num_hidden_layers": 2, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
SHAPES = {
    "EuroBERT/EuroBERT-210m": {"num_hidden_layers": 2, "intermediate_size": 128},
    "Qwen/Qwen3-0.6B-Base": FEW_HEADS,
    "Qwen/Qwen3-Embedding-4B": FEW_HEADS | {"hidden_size": 1088, "head_dim": 64},
}
SYLLABLES = [consonant + vowel for consonant in "bcdfghjklmnpqrstvwxz" for vowel in "aeiou"]
CLASSES = {"eurobert": "EuroBertForMaskedLM", "qwen3": "Qwen3ForCausalLM"}
READING = ("curate", "embed", "mine")
TRAINING = ("distill", "extend", *(f"adapt {task}" for task in TASKS), "quantize", "evaluate")


def dry(value: Any, hub: Path) -> Any:
    """A recipe with models and data sets of another hub, and what MACHINE changes; nothing else."""
    if isinstance(value, dict):
        return {name: changed(name, part, hub) for name, part in value.items()}
    return [dry(part, hub) for part in value] if isinstance(value, list) else value


def changed(name: str, value: Any, hub: Path) -> Any:
    if name == "path":
        return str(hub / value)
    if name == "files":
        return [f"hub:{hub / location.removeprefix('hub:')}" for location in value]
    if name in MACHINE:
        return MACHINE[name](value) if callable(MACHINE[name]) else MACHINE[name]
    return dry(value, hub)


def write_data_set(hub: Path, source: dict[str, Any]) -> None:
    """A source's split as parquet under its data set's folder, with the columns that the recipe names, and its card."""
    import datasets

    options = source["options"]
    config, split = options.get("config", "default"), options["split"]
    folder = hub / source["files"][0].removeprefix("hub:")
    draw = np.random.default_rng([*f"{folder.name} {config} {split}".encode()])
    rows = [made_up(draw, number, options, source["words"]) for number in range(ROWS)]
    (folder / config).mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_list(rows).to_parquet(str(folder / config / f"{split}-00000-of-00001.parquet"))
    card = ["---", "configs:"]
    for subset in sorted(path for path in folder.iterdir() if path.is_dir()):
        card += [f"- config_name: {subset.name}", "  data_files:"]
        for file in sorted(subset.iterdir()):
            name = file.name.partition("-")[0]
            card += [f"  - split: {name}", f"    path: {subset.name}/{name}-*"]
    (folder / "README.md").write_text("\n".join([*card, "---", ""]), encoding="utf-8")


def made_up(draw: np.random.Generator, number: int, options: dict[str, Any], words: dict[str, Any]) -> dict[str, Any]:
    """A row about one of two topics: a value for each option that names a column."""
    topic = number % 2

    def text(field: str) -> str:
        least = max(words.get(field, [4])[0], options.get("stretch_words", 0), 4)
        own = draw.choice(SYLLABLES[topic * 50 : topic * 50 + 50], size=least + int(draw.integers(6)))
        return f"{''.join(draw.choice(SYLLABLES, 3))} {' '.join(own)}."

    values = {"score": lambda: float(options.get("scale", 1)) * (number % 8) / 7, "label": lambda: f"topic {topic}"}
    values |= {"entity": lambda: f"entity {number} {draw.integers(1 << 32)}"}
    columns = {field: column for field, column in options.items() if field in COLUMN_OPTIONS}
    return {column: values.get(field, lambda field=field: text(field))() for field, column in columns.items()}


COLUMN_OPTIONS = {"query", "document", "text", "text_a", "text_b", "score", "label", "entity"}


def write_model(hub: Path, name: str) -> None:
    """A model as the hub has it: the architecture with two layers, random, and a byte-level tokenizer of few tokens."""
    import transformers

    tokenizer = tokenizer_of(name)
    ids = {f"{token}_token_id": getattr(tokenizer, f"{token}_token_id") for token in ("pad", "eos")}
    ids |= {"mask_token_id": tokenizer.mask_token_id} if tokenizer.mask_token else {}
    config = transformers.AutoConfig.for_model(**CONFIGS[name] | SHAPES[name] | ids | {"vocab_size": len(tokenizer)})
    torch.manual_seed(len(name))
    getattr(transformers, CLASSES[config.model_type])(config).save_pretrained(hub / name)
    tokenizer.save_pretrained(hub / name)


def tokenizer_of(name: str) -> Any:
    """EuroBERT's starts and ends a text; Qwen3's adds nothing; Qwen3-Embedding's ends it with its padding token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_end|>", "<|begin_of_text|>", "<|mask|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([" ".join(SYLLABLES), "Query: Document: Instruct:"], trainer)
    start, own, end = {
        "EuroBERT/EuroBERT-210m": ("<|begin_of_text|> ", " <|endoftext|>", "<|endoftext|>"),
        "Qwen/Qwen3-0.6B-Base": ("", "", "<|endoftext|>"),
        "Qwen/Qwen3-Embedding-4B": ("", " <|endoftext|>", "<|im_end|>"),
    }[name]
    if own:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{start}$A{own}", special_tokens=[(token, special.index(token)) for token in special]
        )
    mask = {"mask_token": "<|mask|>"} if name.startswith("EuroBERT") else {}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, pad_token="<|endoftext|>", **mask)


PROGRAM = """
import importlib, sys
from stages.recipe.recipe import read
for command in sys.argv[1:]:
    stage, *arguments = command.split()
    importlib.import_module(f"stages.{stage}").main(read(), *arguments)
"""


def run(folder: Path, stages: tuple[str, ...]) -> None:
    """Run stages in a folder, one after another in one process: torch is imported once."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "STILLHOUSE_"))}
    environment |= {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", PROGRAM, *stages]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1800, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"


def values_of(model: str) -> dict[str, Any]:
    values: dict[str, Any] = YAML(typ="safe").load((RECIPES / f"{model}.yaml").read_text(encoding="utf-8"))
    return values


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A hub/, and what the stages before the student leave: the same for both recipes, which share text and teacher."""
    folder = tmp_path_factory.mktemp("read")
    for model in TABLE_A1:
        write_model(folder / "hub", values_of(model)["distill"]["backbone"]["path"])
    values = values_of("small")
    write_model(folder / "hub", values["embed"]["teacher"]["path"])
    for source in values["curate"]["sources"]:
        write_data_set(folder / "hub", source)
    shutil.copy(empty_store, folder / "mlflow.db")
    YAML(typ="safe").dump(dry(values, folder / "hub"), folder / "params.yaml")
    run(folder, READING)
    return folder


@pytest.fixture(scope="module", params=TABLE_A1)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, read: Path) -> Path:
    """A folder in which the rest of the stages ran."""
    folder = tmp_path_factory.mktemp(request.param) / "build"
    shutil.copytree(read, folder, ignore=shutil.ignore_patterns("hub"))
    YAML(typ="safe").dump(dry(values_of(request.param), read / "hub"), folder / "params.yaml")
    run(folder, TRAINING)
    return folder


def test_recipes_share_text_and_teacher() -> None:
    nano, small = recipe_of("nano"), recipe_of("small")
    assert (nano.seed, nano.curate, nano.embed, nano.mine) == (small.seed, small.curate, small.embed, small.mine)


def recipe_in(folder: Path) -> Recipe:
    return read_recipe(folder / "params.yaml")


def release_in(folder: Path) -> Path:
    return folder / "data/quantized" / recipe_in(folder).name


def config_of(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config


@each_model
def test_a_dry_run_changes_locations_and_sizes_only(model: str) -> None:
    recipe = values_of(model)
    before, after = leaves(recipe), leaves(dry(recipe, Path("hub")))
    assert before.keys() == after.keys()
    changed_keys = {name for path in before if before[path] != after[path] for name in path if isinstance(name, str)}
    words = {
        "curate",
        "sources",
        "embed",
        "mine",
        "distill",
        "extend",
        "adapt",
        "quantize",
        "evaluate",
        "engine",
        *TASKS,
    }
    words |= {"training", "mixture", "long", "warm_start", "backbone", "teacher", "language_id", "dev", "test"}
    words |= {"parity", "float32", "int8"}
    assert changed_keys <= {*MACHINE, *words, "path", "files"}
    same = ("learning_rate", "rope_theta", "temperature", "weights", "lora", "matryoshka_dims", "pooling", "packing")
    assert not changed_keys & {*same, "prompts", "options", "words", "mixing", "average", "architecture"}


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> dict[tuple[str | int, ...], Any]:
    """Every value of a recipe by the way to it; a list of numbers is one value."""
    if isinstance(value, dict):
        return {key: leaf for name, part in value.items() for key, leaf in leaves(part, (*path, name)).items()}
    if isinstance(value, list) and value and isinstance(value[0], dict | list):
        return {key: leaf for at, part in enumerate(value) for key, leaf in leaves(part, (*path, at)).items()}
    return {path: value}


@pytest.mark.slow
def test_two_steps_of_every_phase_were_trained(built: Path) -> None:
    from stages.training.curves import read_curve

    recipe = recipe_in(built)
    curves = {"distill": "distilled", **{task: f"adapted/{task}" for task in TASKS}}
    curves |= {"extend": "extended"} if recipe.extend.training.steps else {}
    for phase, folder in curves.items():
        curve = read_curve(built / "data" / folder / "curve.csv")
        assert [row["step"] for row in curve] == [1, 2], phase
        assert all(np.isfinite(list(row.values())).all() for row in curve), phase
    assert {"info_nce", "distillation", "spread_out"} <= set(read_curve(built / "data/adapted/retrieval/curve.csv")[0])


@pytest.mark.slow
def test_the_architecture_is_the_backbones_with_each_phases_theta(built: Path) -> None:
    recipe = recipe_in(built)
    student = config_of(Path(recipe.distill.backbone.path))
    data, last = built / "data", "extended" if recipe.extend.training.steps else "distilled"
    thetas = {
        data / "distilled/student": recipe.distill.rope_theta,
        data / last / "student": recipe.extend.rope_theta,
        release_in(built) / "base": recipe.quantize.rope_theta,
        **{release_in(built) / "merged" / task: recipe.quantize.rope_theta for task in TASKS},
    }
    for folder, theta in thetas.items():
        config = config_of(folder)
        assert config["rope_parameters"]["rope_theta"] == theta, folder
        for name in ("model_type", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_size"):
            assert config[name] == student[name], f"{folder}: {name}"
    groups = student["num_attention_heads"] // student["num_key_value_heads"]
    assert groups == {"eurobert": 1, "qwen3": 2}[student["model_type"]]


@pytest.mark.slow
def test_the_release_is_saved_exported_and_loads_elsewhere(built: Path) -> None:
    from sentence_transformers import SentenceTransformer

    from stages.modeling.adapters import load_adapter
    from stages.modeling.encoder import saved_encoder

    release, recipe = release_in(built), recipe_in(built)
    for task in TASKS:
        model = SentenceTransformer(str(release / "merged" / task), device="cpu")
        assert model.get_embedding_dimension() == max(recipe.distill.matryoshka_dims)
        assert model.max_seq_length == recipe.quantize.max_tokens
        encoder = saved_encoder(release / "base", rope_theta=None)
        load_adapter(encoder, task, release / "adapters" / task)
        texts, side = ["ba be bi", "ko " * 100], "query" if task == "retrieval" else "document"
        np.testing.assert_allclose(model.encode(texts, prompt_name="query"), encoder.encode(texts, side), atol=1e-4)
        assert (release / "openvino-int8" / task / "model.xml").is_file()


@pytest.mark.slow
def test_the_evaluation_has_every_figure(built: Path) -> None:
    from stages.evaluation.champion_comparison import figure_names

    recipe = recipe_in(built)
    metrics = json.loads((built / "data/evaluated/figures.json").read_text(encoding="utf-8"))
    assert set(metrics["retrieval"]["retrieval"]) == {*recipe.evaluate.sources.retrieval, "mean"}
    beside = figure_names([*metrics["comparisons"]])
    data = {"validation_failures", "evaluation_overlap", "mteb_overlap", "licenses_not_allowed"}
    elsewhere = {"served_cosine_min", "formats_left_out", *data, *beside}
    assert set(recipe.promote.gates) <= set(metrics["summary"]) | elsewhere
    assert np.isfinite(list(metrics["summary"].values())).all()
