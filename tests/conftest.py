"""What several tests share: no telemetry, and a release small enough to make in a second."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

for variable in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "DVC_NO_ANALYTICS", "HF_HUB_OFFLINE"):
    os.environ[variable] = "true"
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["GX_ANALYTICS_ENABLED"] = "false"

# No more threads than a test needs: the cores are shared, and stages set their own.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Threads that wait leave the core to the other workers; those that spin take six times the CPU seconds on shared cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

TASKS = ("retrieval", "text-matching", "clustering", "classification")
WORDS = ["query", "document", ":", "a", "still", "house", "copper", "wort", "spirit", "oak", "malt"]
DIMENSIONS = 32
# Words of the tiny backbones: 100 syllables, and what the prompts are made of.
SYLLABLES = [consonant + vowel for consonant in "bcdfghjklmnpqrstvwxz" for vowel in "aeiou"]
VOCABULARY = ["query", "document", ":", *SYLLABLES]


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow SQLite file with its schema and no runs, to copy: making the schema takes seconds."""
    from mlflow import MlflowClient

    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture(scope="session")
def tiny_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release folder: merged/<task>/ in Sentence Transformers format, each a random one-layer BERT."""
    import torch

    release = tmp_path_factory.mktemp("quantized") / "tiny"
    backbone = tmp_path_factory.mktemp("backbone")
    save_tokenizer(backbone)
    for seed, task in enumerate(TASKS):
        torch.manual_seed(seed)
        save_sentence_transformer(backbone, release / "merged" / task)
        settings = {"pooling": "last", "prompts": {"query": "Query: ", "document": "Document: "}, "max_tokens": 64}
        (release / "merged" / task / "encoder.json").write_text(json.dumps(settings))
    limits = {task: {"8": 0.5, "16": 0.5, "32": 0.4} for task in TASKS}
    (release / "calibration.json").write_text(json.dumps({"int8_limit": limits}))
    (release / "parity.json").write_text('{"formats": {"merged": {"released": true}}}')
    (release / "README.md").write_text("# tiny\n")
    (release / "lineage.json").write_text('{"sources": [{"name": "words", "license": "MIT"}]}')
    return release


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory: pytest.TempPathFactory, tiny_release: Path) -> Path:
    """A working folder as the stages before promote leave it, to copy: the tiny release, scored on made-up rows."""
    from stages.evaluation.champion_comparison import score_adapters
    from stages.evaluation.compared_models import ReleasedModels
    from stages.evaluation.evidence import Evidence, digests_of_tests

    folder = tmp_path_factory.mktemp("evaluated")
    shutil.copytree(tiny_release, folder / "data/quantized/tiny")
    write_curated(folder / "data/curated")
    write_json(folder / "data/curated/metrics.json", {"evaluation_overlap": {"words": 0.05}})
    write_json(folder / "data/validated/validation.json", {"success": True, "suites": []})
    sources = {
        "retrieval": ["words"],
        "text-matching": ["scores"],
        "classification": ["topics"],
        "clustering": ["topics"],
    }
    scored = score_adapters(ReleasedModels(tiny_release / "merged", "float32"), folder / "data/curated", sources, 1)
    tests = digests_of_tests(folder / "data/curated", sources, 1)
    Evidence(scored.outcomes, scored.vectors, tests).save(folder / "data/evaluated/evidence")
    write_json(folder / "data/evaluated/report.json", {"metrics": {}, "curves": {}, "about": {"name": "tiny"}})
    (folder / "dvc.lock").write_text("schema: '2.0'\nstages:\n  evaluate: {cmd: e}\n")
    return folder


@pytest.fixture(scope="session")
def tiny_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which tests/recipes/tiny.yaml was built, by one worker for all: 3 minutes, so its tests are `slow`.

    Tests only read it. A test that changes or builds anything starts from `checkouts.copy_of(tiny_build, folder)`;
    another recipe starts with the teacher's vectors when `.stillhouse/vectors` is copied into its checkout.
    """
    from tests.checkouts import built_once

    own = tmp_path_factory.getbasetemp()
    return built_once((own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "tiny-build")


# Files that take minutes, the longest first: they start first, so that no worker is left with a long one at the end.
LONG = ("test_topology.py", "test_tiny_pipeline.py", "test_recipes.py", "test_multi_node.py", "test_ablate.py")
LONG += ("test_distributed.py", "test_verify.py", "test_ray.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first; the order of all others stays."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


def write_curated(curated: Path, variant: int = 0) -> None:
    """Test rows of every kind, and labelled ones to fit a classifier on; another variant has other texts."""
    import numpy as np

    from stages.corpus.tables import SCHEMAS, write_table

    generator = np.random.default_rng(variant)
    texts = [" ".join(generator.choice(WORDS, size=6)) for _ in range(24)]
    origin = {"entity": "e", "language": "en", "license": "MIT"}
    pairs = [{"query": text, "document": f"{text} oak", "source": "words"} for text in texts]
    scored = [
        {"text_a": text, "text_b": other, "score": float(at % 5) / 4, "source": "scores"}
        for at, (text, other) in enumerate(zip(texts, texts[::-1], strict=True))
    ]
    labelled = [{"text": text, "label": "malt" if "malt" in text else "other", "source": "topics"} for text in texts]
    for kind, splits, rows in (
        ("pairs", ("train", "test"), pairs),
        ("scored", ("test",), scored),
        ("labelled", ("dev", "test"), labelled),
    ):
        whole = [row | origin | {"id": f"{kind}-{at}"} for at, row in enumerate(rows)]
        for split in splits:
            write_table(curated / kind / f"{split}.parquet", whole, SCHEMAS[kind])


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def save_tokenizer(folder: Path, words: Sequence[str] = WORDS) -> None:
    """A word-level tokenizer of a dozen words, padding on the right."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: index for index, word in enumerate([*special, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)


def save_sentence_transformer(backbone: Path, folder: Path) -> None:
    """A random BERT of one layer behind the tokenizer, last-token pooling, normalisation, both prompts."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=4 + len(WORDS),
        hidden_size=DIMENSIONS,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=1.0,
    )
    BertModel(config).save_pretrained(backbone)
    modules = [Transformer(str(backbone)), Pooling(DIMENSIONS, pooling_mode="lasttoken"), Normalize()]
    prompts = {"query": "Query: ", "document": "Document: "}
    SentenceTransformer(modules=modules, prompts=prompts, device="cpu").save(str(folder))


@pytest.fixture
def recipe() -> dict[str, Any]:
    """The values of the default recipe, fresh: to change, to check, to write to a params.yaml."""
    from ruamel.yaml import YAML

    values: dict[str, Any] = YAML(typ="safe").load(Path(__file__).resolve().parents[1] / "params.yaml")
    return values


@pytest.fixture
def short_recipe(recipe: dict[str, Any]) -> dict[str, Any]:
    """The same recipe without the long-context phase, its evaluation and unseen sources: fewer sources to make up."""
    recipe["embed"]["long"]["sources"] = []
    recipe["extend"]["mixture"] = []
    recipe["extend"]["training"]["steps"] = 0
    recipe["evaluate"]["long"] |= {"haystacks": None, "articles": None}
    recipe["evaluate"]["sources"]["unseen"] = []
    recipe["promote"]["gates"] = {name: g for name, g in recipe["promote"]["gates"].items() if "unseen" not in name}
    return recipe


@pytest.fixture(scope="session")
def sentences() -> list[str]:
    """200 distinct texts of 1 to 20 syllables."""
    import numpy as np

    generator = np.random.default_rng(0)
    texts = {" ".join(generator.choice(SYLLABLES, size=generator.integers(1, 21))) for _ in range(240)}
    return sorted(texts)[:200]


@pytest.fixture(scope="session")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of tiny random backbones with their tokenizers by architecture; copy one before changing it."""
    import torch
    from transformers import (
        BertConfig,
        BertModel,
        EuroBertConfig,
        EuroBertModel,
        ModernBertConfig,
        ModernBertModel,
        Qwen3Config,
        Qwen3Model,
    )

    shape = {
        "vocab_size": 4 + len(VOCABULARY),
        "hidden_size": DIMENSIONS,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
        "pad_token_id": 0,
    }
    models = {
        "bert": (BertModel, BertConfig(**shape)),
        "eurobert": (EuroBertModel, EuroBertConfig(**shape)),
        "qwen3": (Qwen3Model, Qwen3Config(**shape, num_key_value_heads=1, head_dim=16)),
        "modernbert": (
            ModernBertModel,
            ModernBertConfig(**shape, local_attention=8, initializer_cutoff_factor=2.0, cls_token_id=2, sep_token_id=3),
        ),
    }
    folders = {}
    for seed, (name, (model, config)) in enumerate(models.items()):
        torch.manual_seed(seed)
        folders[name] = tmp_path_factory.mktemp("backbones") / name
        model(config).save_pretrained(folders[name])
        if name == "qwen3":
            save_endless_tokenizer(folders[name])
        else:
            save_tokenizer(folders[name], VOCABULARY)
    return folders


def save_endless_tokenizer(folder: Path) -> None:
    """A tokenizer that knows an end-of-sequence token, adds none, pads with another and pads on the left."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<|pad|>", "<|unknown|>", "<|start|>", "<|end|>"]
    vocabulary = {word: index for index, word in enumerate([*special, *VOCABULARY])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|unknown|>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        unk_token="<|unknown|>",
        eos_token="<|end|>",
        padding_side="left",
    ).save_pretrained(folder)


def register_version(client: Any, model: str, weights: str) -> str:
    """A version of a release in data/quantized/tiny as promote leaves it, judged against the champion of now."""
    from stages.registry import store
    from stages.registry.provenance import provenance
    from stages.tracking.digests import digest
    from stages.tracking.recorder import as_tags

    release = Path("data/quantized/tiny")
    (release / "merged/retrieval").mkdir(parents=True, exist_ok=True)
    (release / "merged/retrieval/weights").write_text(weights)
    shutil.copytree(release / "merged", f"served/{weights}/artifacts/merged")
    Path(f"served/{weights}/artifacts/calibration.json").write_text("{}")
    Path(f"served/{weights}/serving.py").write_text("# serves")
    run = client.create_run("0")
    client.log_text(run.info.run_id, weights, "evidence/rows")
    judged_by = digest(Path(client.download_artifacts(run.info.run_id, "evidence")))
    champion = store.champion_of(client, model)
    known = provenance(release) | {"release": "tiny", "evidence_run_id": run.info.run_id, "evidence_digest": judged_by}
    known |= {"judged_against": champion.version if champion else "none", "validation_status": "passed"}
    known |= {"git_sha": "abc", "git_dirty": False}
    source, tags = Path(f"served/{weights}").resolve().as_uri(), as_tags(known)
    version = client.create_model_version(model, source, tags=tags, description="| gate |")
    client.set_model_version_tag(model, version.version, "served_digest", store.served_digest(client, version))
    return str(version.version)


def cut_at(recipe: dict[str, Any], max_tokens: int) -> None:
    """Have the teacher, and so the student in every phase, read so many tokens of a text."""
    adapt = recipe["adapt"]
    phases = [recipe["distill"], *(adapt[task] for task in ("text-matching", "clustering", "classification"))]
    for part in (recipe["embed"], *phases, *recipe["extend"]["mixture"], *adapt["retrieval"]["mixture"]):
        part["max_tokens"] = max_tokens
