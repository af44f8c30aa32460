"""The recipe's typed contract: a fault is one line that names its key, said before anything heavy happens."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from pydantic_core import PydanticUndefined
from ruamel.yaml import YAML

from stages.recipe.curate import Source
from stages.recipe.fields import Section
from stages.recipe.paths import CHECKED
from stages.recipe.promote import Gate
from stages.recipe.recipe import read
from tests.checkouts import chosen_tasks, short_recipe, without_formats

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "mlflow", "pandas", "pyarrow", "great_expectations", "numpy")
REMOVED = "(removed)"
STAGES = ["curate", "embed", "mine", "distill", "extend", "adapt", "quantize", "evaluate", "promote"]


def changed(recipe: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The recipe with one key set or removed; a number in the key is a place in a list."""
    *path, last = [int(part) if part.isdigit() else part for part in key.split("/")]
    section: Any = recipe
    for part in path:
        section = section[part]
    if value is REMOVED:
        del section[last]
    else:
        section[last] = value
    return recipe


def written(recipe: dict[str, Any], path: Path) -> Path:
    YAML(typ="safe").dump(recipe, path)
    return path


def faults(recipe: dict[str, Any], path: Path) -> list[str]:
    with pytest.raises(ValueError, match=path.name) as caught:
        read(written(recipe, path))
    return str(caught.value).splitlines()


def test_the_default_recipe_is_valid() -> None:
    recipe = read(ROOT / "params.yaml")
    assert {source.name for source in recipe.curate.sources} >= set(recipe.distill.sources)
    # DVC's parser: PyYAML reads 1e-4 as a string.
    assert isinstance(recipe.distill.training.learning_rate, float)


def test_a_checked_recipe_does_not_change() -> None:
    recipe = read(ROOT / "params.yaml")
    with pytest.raises(ValidationError, match="frozen"):
        recipe.seed = 3


ENDPOINT = {
    "kind": "endpoint",
    "url": "http://127.0.0.1:8000/v1",
    "model": "big",
    "key_variable": None,
    "batch_size": 8,
    "parallel": 1,
    "max_retries": 2,
    "timeout": 10.0,
    "extra_body": {},
    "too_long": "stop",
}
FAULTS: list[tuple[str, Any, str, str]] = [
    # key to change, value, key that the message names, part of the message
    ("sead", 1, "sead", "unknown key"),
    ("distill/trianing", {}, "distill.trianing", "unknown key"),
    ("adapt/retrieval/temprature", 0.1, "adapt.retrieval.temprature", "unknown key"),
    ("curate/sources/0/lisense", "MIT", "curate.sources.0.lisense", "unknown key"),
    ("seed", REMOVED, "seed", "missing"),
    ("adapt/text-matching/cosent_temperature", REMOVED, "adapt.text-matching.cosent_temperature", "missing"),
    ("distill/rope_theta", REMOVED, "distill.rope_theta", "missing"),
    ("promote/gates", REMOVED, "promote.gates", "missing"),
    ("seed", -1, "seed", "greater than or equal to 0"),
    ("seed", None, "seed", "valid integer"),
    ("engine/threads", 0, "engine.threads", "greater than or equal to 1"),
    ("name", "Not A Name", "name", "match pattern"),
    ("name", "../elsewhere", "name", "match pattern"),
    ("adapt/retrieval/temperature", 0.0, "adapt.retrieval.temperature", "greater than or equal to 0.005"),
    ("adapt/retrieval/temperature", float("nan"), "adapt.retrieval.temperature", "finite"),
    ("adapt/retrieval/temperature", "warm", "adapt.retrieval.temperature", "valid number"),
    ("adapt/retrieval/average/earlier", 1.0, "adapt.retrieval.average.earlier", "less than 1"),
    ("adapt/classification/training/batch_size", 1, "adapt.classification.training.batch_size", "equal to 2"),
    ("mine/relative_margin", 1.5, "mine.relative_margin", "less than or equal to 1"),
    ("mine/rank_window", [50, 1], "mine.rank_window", "[least, most]"),
    ("mine/consistency", {"faq": 3}, "mine", "expected sources of mine.sources"),
    ("mine/sources", [], "adapt.retrieval.mixture", "no mined negatives; add them to mine.sources"),
    # Tasks that are left out.
    ("adapt/clustering", {"sources": []}, "evaluate.sources.clustering", "since adapt.clustering has no sources, got"),
    ("adapt/clustering", {"sources": None}, "adapt.clustering.sources", "valid tuple"),
    ("adapt/retrieval", {"mixture": []}, "evaluate.sources.retrieval", "set it to [], or give adapt.retrieval sources"),
    ("evaluate/sources/unseen", [], "promote.gates", "but there are no such figures"),
    ("quantize/formats", ["onnx"], "promote.gates", "since quantize.formats names no int8 format; remove these gates"),
    ("distill/matryoshka_dims", [64, 32], "distill.matryoshka_dims", "increasing"),
    ("distill/pooling", "max", "distill.pooling", "'last', 'mean' or 'cls'"),
    ("distill/training/learning_rate", float("inf"), "distill.training.learning_rate", "finite"),
    ("distill/backbone/num_layers", 2, "distill.backbone", "takes its shape from the folder"),
    ("distill/backbone/max_position_embeddings", None, "distill.backbone", "the most tokens of a text"),
    ("distill/backbone/architecture", "pretrained", "distill.backbone", "null"),
    ("distill/prompts", {"query": ""}, "distill", "expected ['document', 'query'], got ['query']"),
    (
        "embed/prompts",
        {"query": "", "document": ""},
        "embed",
        "expected ['clustering', 'document', 'query'], got ['document', 'query']",
    ),
    ("embed/teacher/kind", "remote", "embed.teacher", "'transformer', 'sentence_transformer', 'endpoint'"),
    ("embed/teacher", ENDPOINT, "embed", "a server does not say how it splits texts into tokens"),
    (
        "embed/teacher",
        ENDPOINT | {"url": "https://me:key@host/v1"},
        "embed.teacher.endpoint.url",
        "https://***@host/v1",
    ),
    ("embed/teacher", ENDPOINT | {"key": "sk-1"}, "embed.teacher.endpoint.key", "unknown key"),
    ("embed/ray", {"workers": 0, "gpus": 0}, "embed.ray.workers", "greater than or equal to 1"),
    ("mine/candidates", ["bm25", "bm25"], "mine", "expected each list once"),
    ("mine/candidates", ["teacher", "student"], "mine", "give the folder merged/retrieval of an earlier build"),
    ("mine/student", "earlier", "mine", "or neither"),
    ("adapt/retrieval/false_negative_margin", 1.5, "adapt.retrieval.false_negative_margin", "less than or equal to 1"),
    ("evaluate/mteb/tasks", ["SciFact", "MTEB(eng"], "evaluate.mteb.tasks.1", "in quotes"),
    ("curate/sources/0/splits/test", 0.95, "curate.sources.0.splits", "sum is at most 1, got 0.08 + 0.95"),
    ("curate/sources/0/words", {"query": [1, 2]}, "curate.sources.0", "['query', 'document'], got ['query']"),
    ("curate/sources/0/tokens", {"query": [1, 2], "document": [1, 2]}, "curate.sources.0", "one of these two keys"),
    ("curate/sources/0/words", REMOVED, "curate.sources.0", "limits in words or in tokens"),
    ("curate/sources/0/language", "English", "curate.sources.0.language", "match pattern"),
    ("curate/sources/5/language", "en-de-fr", "curate.sources.5.language", "match pattern"),
    ("curate/sources/4/language", "en-de", "curate.sources.4", "expected one language, got the pair en-de"),
    ("curate/sources/3/language", "mul", "curate", "put the two into separate groups"),
    ("curate/evaluation_overlap/containment", 0.3, "curate.evaluation_overlap.containment", "equal to 0.5"),
    ("extend/language_exponent", 1.5, "extend.language_exponent", "less than or equal to 1"),
    ("curate/sources/0/kind", "triples", "curate.sources.0.kind", "'pairs'"),
    ("curate/allowed_licenses", ["MIT"], "curate", "expected licences among ['MIT'], got {'wikipedia': 'CC-BY-SA-4.0'"),
    ("curate/near_duplicates/across", [["simlex", "cwe"]], "curate", "sources of one kind, got ['simlex', 'cwe']"),
    ("curate/near_duplicates/across", [["cwe", "wikipedia"], ["cwe", "botocore"]], "curate", "in at most one group"),
    ("curate/evaluation_overlap/jaccard", 1.0, "curate.evaluation_overlap.jaccard", "less than 1"),
    ("promote/gates/half", {}, "promote.gates.half", "give min, max, or low"),
    ("promote/gates/half", {"min": 0, "otherwise": "shrug"}, "promote.gates.half.otherwise", "'refuse' or 'warn'"),
    ("promote/mode", "on", "promote.mode", "'disabled', 'dry_run' or 'enabled'"),
    ("promote/signoff", "maybe", "promote.signoff", "'automatic' or 'human'"),
    ("promote/approvals", 3, "promote.approvals", "less than or equal to 2"),
    ("promote/approvals", 2, "promote", "since signoff automatic asks nobody, got 2"),
    # One section against another.
    ("mine/sources", ["wikipedia", "nowhere"], "mine.sources", "of kind pairs in curate.sources, got ['nowhere']"),
    ("distill/sources", ["nowhere"], "distill.sources", "of any kind in curate.sources, got ['nowhere']"),
    (
        "adapt/classification/sources",
        ["wikipedia"],
        "adapt.classification.sources",
        "of kind labelled in curate.sources, got ['wikipedia']",
    ),
    (
        "adapt/text-matching/scored_sources",
        ["wikipedia"],
        "adapt.text-matching.scored_sources",
        "of kind scored in curate.sources, got",
    ),
    ("evaluate/long/articles", "wikipedia", "evaluate.long.articles", "'wikipedia' is also in mine.sources"),
    (
        "evaluate/sources/unseen",
        ["wikipedia"],
        "evaluate.sources.unseen",
        "nothing trains on, but ['wikipedia'] are in distill.sources",
    ),
    ("extend/mixture/3/max_tokens", 128, "extend.mixture", "reads 128 tokens of wikipedia, but the teacher only 96"),
    ("embed/long/sources", ["speeches"], "extend.mixture", "reads 2048 tokens of needles, but the teacher only 96"),
    ("adapt/retrieval/mixture/0/max_tokens", 128, "adapt.retrieval.mixture", "reads 128 tokens of wikipedia, but the"),
    (
        "adapt/clustering/max_tokens",
        128,
        "adapt.clustering.max_tokens",
        "reads 128 tokens, but the teacher only 96; lower it",
    ),
    ("adapt/retrieval/temperature", 0.5, "adapt.retrieval.temperature", "less than or equal to 0.2"),
    ("quantize/formats", ["onnx", "gguf"], "quantize.formats", "gguf is not released: no kept package loads it"),
    ("quantize/formats", ["onnx", "onnx"], "quantize.formats", "expected each format once"),
    ("quantize/formats", ["onnx-int8", "tflite"], "quantize.formats.1", "'onnx', 'onnx-int8' or 'openvino-int8'"),
    ("quantize/parity/int8/cosine_mean", 1.1, "quantize.parity.int8.cosine_mean", "less than or equal to 1"),
    ("quantize/rope_theta", None, "evaluate.long", "give both, or set haystacks and articles to null"),
    (
        "evaluate/long/haystacks",
        "speeches",
        "evaluate.long.haystacks",
        "of kind documents in curate.sources, got ['speeches']",
    ),
    ("adapt/retrieval/num_negatives", 99, "adapt.retrieval.num_negatives", "at most mine.num_negatives, 4, got 99"),
    ("adapt/retrieval/mixture/0/source", "wikipedia-descriptions", "adapt.retrieval.mixture", "no mined negatives"),
    ("extend/mixture", [], "extend", "name a source to draw from"),
    ("distill/training/batch_size", 8, "distill.training", "batch_tokens or batch_size"),
]


@pytest.mark.parametrize(("where", "value", "key", "says"), FAULTS, ids=[f"{one[0]}={one[1]}"[:48] for one in FAULTS])
def test_a_fault_is_one_line_that_names_its_key(
    recipe: dict[str, Any], tmp_path: Path, where: str, value: Any, key: str, says: str
) -> None:
    file = tmp_path / "params.yaml"
    lines = faults(changed(recipe, where, value), file)
    assert len(lines) == 1
    assert lines[0].startswith(f"{file}: {key}: ")
    assert says in lines[0]


ALONE = [("retrieval",), ("text-matching",), ("clustering",), ("classification",), ("retrieval", "classification")]


@pytest.mark.parametrize("tasks", ALONE, ids="+".join)
def test_any_tasks_can_be_chosen_and_only_their_sources_are_needed(tmp_path: Path, tasks: tuple[str, ...]) -> None:
    file = written(without_formats(chosen_tasks(short_recipe(), *tasks)), tmp_path / "params.yaml")
    recipe = read(file)
    assert recipe.adapt.tasks == tasks
    assert ("scored" in {source.kind for source in recipe.curate.sources}) == ("text-matching" in tasks)
    assert [key for key, (_, names) in recipe.named_sources().items() if key.startswith("adapt.") and names] == [
        key for key in recipe.named_sources() if key.startswith(tuple(f"adapt.{task}." for task in tasks))
    ]


def test_at_least_one_task_is_chosen(tmp_path: Path) -> None:
    (line,) = faults(chosen_tasks(short_recipe()), tmp_path / "params.yaml")
    assert "adapt: expected sources for at least one task, got none" in line


def test_other_keys_of_a_task_that_is_left_out_may_stay(tmp_path: Path) -> None:
    values = chosen_tasks(short_recipe(), "retrieval")
    values["adapt"]["clustering"] = short_recipe()["adapt"]["clustering"] | {"sources": []}
    assert read(written(values, tmp_path / "params.yaml")).adapt.tasks == ("retrieval",)


@pytest.mark.parametrize("key", ["scored_sources", "pair_sources"])
def test_text_matching_may_have_pairs_of_one_kind(recipe: dict[str, Any], tmp_path: Path, key: str) -> None:
    recipe["adapt"]["text-matching"][key] = []
    assert "text-matching" in read(written(recipe, tmp_path / "params.yaml")).adapt.tasks


def test_an_absent_task_ends_before_torch_is_imported(tmp_path: Path) -> None:
    written(chosen_tasks(short_recipe(), "retrieval"), tmp_path / "params.yaml")
    process = run_module("stages.adapt", tmp_path, "clustering")
    assert process.returncode == 0, process.stderr
    assert not imported(process) & set(HEAVY)
    assert (tmp_path / "data/adapted/clustering/curve.csv").read_text().split() == ["step,loss"]
    assert (tmp_path / "data/lineage/adapt@clustering.json").read_text() == "{}\n"


def test_a_source_named_twice_is_refused(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe["curate"]["sources"].append(recipe["curate"]["sources"][0])
    assert "expected each name once, got ['wikipedia']" in faults(recipe, tmp_path / "params.yaml")[0]


def test_every_fault_is_listed_at_once(recipe: dict[str, Any], tmp_path: Path) -> None:
    lines = faults(changed(changed(recipe, "seed", -1), "engine/threads", REMOVED), tmp_path / "params.yaml")
    assert [line.split(": ")[1] for line in lines] == ["seed", "engine.threads"]


@pytest.mark.parametrize("text", ["seed: [1", "a: 1\na: 2\n", "", "just words"])
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"params\.yaml"):
        read(file)


def sections(base: type[Section] = Section) -> list[type[Section]]:
    return [base, *(one for child in base.__subclasses__() for one in sections(child))]


SECTIONS = sections()


@pytest.mark.parametrize("section", SECTIONS)
def test_no_section_has_defaults_or_takes_unknown_keys(section: type[Section]) -> None:
    defaults = {
        name
        for name, declared in section.model_fields.items()
        if declared.default is not PydanticUndefined or declared.default_factory is not None
    }
    # These sections need one or two of their keys, and check so themselves.
    optional = {Gate: {"min", "max", "low", "otherwise"}, Source: {"words", "tokens"}}
    assert defaults == optional.get(section, set())
    assert section.model_config["extra"] == "forbid"
    assert section.model_config["frozen"] is True


@pytest.mark.parametrize("section", [section for section in SECTIONS if section is not Section])
def test_every_key_is_described_in_a_sentence(section: type[Section]) -> None:
    assert section.__doc__
    for name, field in section.model_fields.items():
        assert field.description, f"{section.__name__}.{name}"
        assert field.description[0].isupper() or field.description[0] in "`", f"{section.__name__}.{name}"
        assert field.description.endswith("."), f"{section.__name__}.{name}"


def run_module(module: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -X importtime -m MODULE` in a folder, with the code of this repository."""
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", module, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def imported(process: subprocess.CompletedProcess[str]) -> set[str]:
    """Packages that a process run by `run_module` imported."""
    lines = [line for line in process.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def message(process: subprocess.CompletedProcess[str]) -> str:
    return "\n".join(line for line in process.stderr.splitlines() if not line.startswith("import time:"))


def test_a_bad_recipe_ends_the_check_at_once(recipe: dict[str, Any], tmp_path: Path) -> None:
    written(changed(recipe, "adapt/retrieval/temprature", 0.1), tmp_path / "params.yaml")
    process = run_module("stages.check", tmp_path)
    assert process.returncode == 1
    assert message(process) == (
        "error: params.yaml: adapt.retrieval.temprature: unknown key; correct its spelling or remove it"
    )
    assert not (tmp_path / "data").exists()
    assert "pydantic" in imported(process)  # else the next line looks at nothing
    assert not imported(process) & set(HEAVY)  # what takes seconds


def test_a_good_recipe_leaves_the_same_mark_whatever_it_says(recipe: dict[str, Any], tmp_path: Path) -> None:
    marks = []
    for seed in (1, 2):
        written(changed(recipe, "seed", seed), tmp_path / "params.yaml")
        process = run_module("stages.check", tmp_path)
        assert process.returncode == 0, process.stderr
        assert f"recipe {recipe['name']} is valid" in process.stdout
        marks.append((tmp_path / CHECKED / "recipe.txt").read_bytes())
    assert marks[0] == marks[1]


def test_another_file_is_checked_without_a_mark(recipe: dict[str, Any], tmp_path: Path) -> None:
    written(recipe, tmp_path / "nano.yaml")
    process = run_module("stages.check", tmp_path, "nano.yaml")
    assert process.returncode == 0, process.stderr
    assert not (tmp_path / "data").exists()


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    process = run_module("stages.check", tmp_path)
    assert process.returncode == 1
    assert message(process).startswith("error: ")
    assert "params.yaml" in message(process)
    assert "Traceback" not in message(process)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_with_a_bad_recipe_imports_nothing_heavy_and_leaves_outputs(
    recipe: dict[str, Any], tmp_path: Path, stage: str
) -> None:
    written(changed(recipe, "seed", -1), tmp_path / "params.yaml")
    outputs = tmp_path / "data"
    for folder in ("curated", "embedded", "distilled", "adapted/retrieval", "quantized", "evaluated"):
        (outputs / folder).mkdir(parents=True)
        (outputs / folder / "kept.txt").write_text("kept")
    before = shutil.copytree(outputs, tmp_path / "before")
    process = run_module(f"stages.{stage}", tmp_path)
    assert process.returncode == 1
    assert message(process).startswith("error: params.yaml: seed: ")
    assert "Traceback" not in message(process)
    assert not imported(process) & set(HEAVY)
    assert {path.relative_to(outputs): path.read_text() for path in outputs.rglob("*.txt")} == {
        path.relative_to(before): path.read_text() for path in before.rglob("*.txt")
    }
    assert not (tmp_path / ".stillhouse").exists()
