"""The rules that CONTRIBUTING.md states: dvc.yaml lists what stages read, and folders import one way."""

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from flows.cli import COMMANDS
from stages.recipe import paths

ROOT = Path(__file__).resolve().parents[1]
# DVC tracks the recipe's values themselves, so its classes and the start of a stage are no dependencies.
UNTRACKED = ("stages.recipe.", "stages.entry")
# Packages that only the named modules may import.
ONLY_IN = {
    "mlflow": (
        "flows.",
        "stages.modeling.serving",
        "stages.planning.measured",
        "stages.promote",
        "stages.registry.",
        "stages.tracking.",
    )
}
MOST_FUNCTION_IMPORTS = 25
MOST_TYPE_CHECKING_BLOCKS = 5


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml, its foreach expanded."""

    name: str
    module: str
    params: tuple[str, ...]
    deps: tuple[str, ...]
    outs: tuple[str, ...]

    @property
    def code(self) -> list[str]:
        return [dep for dep in self.deps if dep.startswith("stages/")]

    @property
    def data(self) -> list[str]:
        return [dep for dep in self.deps if dep.startswith("data/")]


def load_yaml(name: str) -> Any:
    return YAML(typ="safe").load((ROOT / name).read_text(encoding="utf-8"))


def filled(value: Any, key: str, item: dict[str, str]) -> Any:
    """A foreach body with `${key}` and `${item.NAME}` replaced, as DVC does."""
    if isinstance(value, dict):
        return {name: filled(part, key, item) for name, part in value.items()}
    if isinstance(value, list):
        return [filled(part, key, item) for part in value]
    if isinstance(value, str):
        for name, text in {"key": key, **{f"item.{name}": text for name, text in item.items()}}.items():
            value = value.replace(f"${{{name}}}", text)
    return value


def read_stages() -> Iterator[Stage]:
    for name, body in load_yaml("dvc.yaml")["stages"].items():
        bodies = {name: body}
        if "foreach" in body:
            bodies = {f"{name}@{key}": filled(body["do"], key, item) for key, item in body["foreach"].items()}
        for full_name, one in bodies.items():
            command = one["cmd"].split()
            assert command == ["python", "-m", f"stages.{name}", *full_name.partition("@")[2:]][: len(command)]
            outs = (*one.get("outs", []), *one.get("metrics", []))
            yield Stage(full_name, command[2], tuple(one.get("params", [])), tuple(one["deps"]), outs)


STAGES = list(read_stages())
WORKING = [stage for stage in STAGES if stage.name != "check"]
# The stages of one module read the recipe by their argument: a rule about the module holds for all of them together.
SIBLINGS = {stage.name: [other for other in STAGES if other.module == stage.module] for stage in STAGES}
each_stage = pytest.mark.parametrize("stage", WORKING, ids=lambda stage: stage.name)


def modules(folder: str) -> dict[str, Path]:
    """Modules below a top-level folder by dotted name."""
    files = sorted((ROOT / folder).rglob("*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


STAGE_FILES, FLOW_FILES = modules("stages"), modules("flows")
FILES = STAGE_FILES | FLOW_FILES
STAGE_MODULES = {stage.module for stage in STAGES}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@cache
def imported(module: str) -> frozenset[str]:
    """Dotted names that a module imports; `from a import b` gives `a` and `a.b`."""
    names: set[str] = set()
    for node in ast.walk(tree(FILES[module])):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(names)


def reached(module: str) -> set[Path]:
    """Files of stages/ that run when a stage runs, without those that DVC need not track."""
    found, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name not in found and not name.startswith(UNTRACKED):
            found.add(name)
            waiting += imported(name) & STAGE_FILES.keys()
    return {STAGE_FILES[name] for name in found if STAGE_FILES[name].name != "__init__.py"}


def covers(dep: str, path: Path) -> bool:
    return ROOT / dep in (path, *path.parents)


def overlap(place: Path, other: Path) -> bool:
    """Whether two paths are the same, or one holds the other."""
    return place == other or place in other.parents or other in place.parents


# What dvc.yaml says


@each_stage
def test_code_dependencies_are_exactly_what_a_stage_imports(stage: Stage) -> None:
    files = reached(stage.module)
    missing = {str(path.relative_to(ROOT)) for path in files if not any(covers(dep, path) for dep in stage.code)}
    assert not missing, f"dvc.yaml: {stage.name} imports {sorted(missing)} and would not re-run for them"
    idle = [dep for dep in stage.code if not any(covers(dep, path) for path in files)]
    assert not idle, f"dvc.yaml: {stage.name} would re-run for {idle}, which it does not import"


@each_stage
def test_data_dependencies_and_outputs_are_the_paths_that_a_stage_names(stage: Stage) -> None:
    named = {
        getattr(paths, name.rpartition(".")[2])
        for name in imported(stage.module)
        if name.startswith("stages.recipe.paths.") and isinstance(getattr(paths, name.rpartition(".")[2]), Path)
    }
    declared = [Path(place) for sibling in SIBLINGS[stage.name] for place in (*sibling.data, *sibling.outs)]
    undeclared = [place for place in named if place.parts[0] == "data" and not any(overlap(place, d) for d in declared)]
    assert not undeclared, f"dvc.yaml: {stage.name} names {undeclared}, which are neither dependencies nor outputs"
    allowed_unnamed = (paths.SOURCES, paths.CHECKED, paths.LINEAGE)
    unnamed = [d for d in declared if not any(overlap(d, place) for place in (*named, *allowed_unnamed))]
    assert not unnamed, f"dvc.yaml: {stage.name} declares {unnamed}, which it does not name"


def test_every_data_dependency_is_made_by_an_earlier_stage() -> None:
    made = [paths.SOURCES]
    for stage in STAGES:
        assert all(any(overlap(Path(dep), out) for out in made) for dep in stage.data), stage.name
        made += map(Path, stage.outs)
    assert len(made) == len(set(made))


def test_of_the_adapters_only_retrieval_reruns_for_mined_negatives() -> None:
    readers = [stage.name for stage in STAGES if "data/mined" in stage.data]
    assert readers == ["adapt@retrieval"]


def attribute_chains(module: ast.Module, variable: str) -> Iterator[list[str]]:
    """`recipe.a.b` as ["a", "b"]: every chain of attributes of a variable."""
    for node in ast.walk(module):
        names: list[str] = []
        value: ast.AST = node
        while isinstance(value, ast.Attribute):
            names.insert(0, value.attr)
            value = value.value
        if names and isinstance(value, ast.Name) and value.id == variable:
            yield names


def recipe_keys(stage: Stage) -> set[str]:
    """Keys of the recipe that a stage module reads, as dvc.yaml writes them."""
    keys, recipe = set(), load_yaml("params.yaml")
    for names in attribute_chains(tree(STAGE_FILES[stage.module]), "recipe"):
        values, known = recipe, []
        for name in names:
            spelt = name if isinstance(values, dict) and name in values else name.replace("_", "-")
            if not isinstance(values, dict) or spelt not in values:
                break
            known.append(spelt)
            values = values[spelt]
        keys.add(".".join(known))
    return keys - {"", "name"}  # `name` only titles what a stage records, unless the stage lists it


def within(key: str, outer: str) -> bool:
    return key == outer or key.startswith(f"{outer}.")


@each_stage
def test_parameters_are_what_a_stage_reads(stage: Stage) -> None:
    """A section that the library takes whole may be listed in parts: those that the library reads."""
    keys = recipe_keys(stage)
    params = [listed for sibling in SIBLINGS[stage.name] for listed in sibling.params]
    unlisted = [key for key in keys if not any(within(key, one) or within(one, key) for one in params)]
    assert not unlisted, f"dvc.yaml: {stage.name} reads {unlisted} and would not re-run for them"
    idle = [one for one in stage.params if one != "name" and not any(within(k, one) or within(one, k) for k in keys)]
    assert not idle, f"dvc.yaml: {stage.name} would re-run for {idle}, which it does not read"
    for listed in stage.params:
        value = load_yaml("params.yaml")
        for part in listed.split("."):
            assert part in value, f"dvc.yaml: {stage.name} lists {listed}, which params.yaml does not have"
            value = value[part]


# Which folder may import which

LIBRARY = sorted(name for name, path in STAGE_FILES.items() if name.count(".") > 1 and path.name != "__init__.py")


def test_modules_right_below_stages_are_the_stages_and_their_entry() -> None:
    top_level = {name for name in STAGE_FILES if name.count(".") == 1 and STAGE_FILES[name].name != "__init__.py"}
    assert top_level == STAGE_MODULES | {"stages.entry"}


def test_the_library_imports_no_stage_and_takes_sections_never_the_recipe() -> None:
    commands = {function.partition(":")[0] for function, _ in COMMANDS.values()}
    for name in LIBRARY:
        assert not imported(name) & STAGE_MODULES, f"{name} imports a stage"
        assert not {"dvc", "prefect"} & {one.partition(".")[0] for one in imported(name)}, name
        if not name.startswith("stages.recipe.") and name not in commands:
            assert "stages.recipe.recipe.Recipe" not in imported(name), f"{name} takes the whole recipe, not sections"


def test_a_stage_imports_no_other_stage() -> None:
    for name in STAGE_MODULES:
        assert not imported(name) & (STAGE_MODULES - {name}), f"{name}: stages meet through files under data/"


def test_losses_import_torch_and_losses_only() -> None:
    for name in (one for one in LIBRARY if one.startswith("stages.losses.")):
        outside = {one for one in imported(name) if not one.startswith(("torch", "stages.losses"))}
        assert {one.partition(".")[0] for one in outside} <= {"collections", "math", "typing"}, name


def test_flows_import_neither_torch_nor_stages_but_the_recipe() -> None:
    for name in FLOW_FILES:
        assert "torch" not in {one.partition(".")[0] for one in imported(name)}, name
        stages = {one for one in imported(name) & STAGE_FILES.keys() if not one.startswith("stages.recipe")}
        assert not stages, f"{name} imports {stages}"


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_package_stays_in_its_folders(package: str) -> None:
    users = {name for name in FILES if package in {one.partition(".")[0] for one in imported(name)}}
    assert users and all(name.startswith(ONLY_IN[package]) for name in users), sorted(users)


# How modules are written


def test_imports_stand_at_the_top() -> None:
    functions = [
        node
        for path in FILES.values()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    inside = sum(isinstance(node, ast.Import | ast.ImportFrom) for function in functions for node in ast.walk(function))
    assert inside <= MOST_FUNCTION_IMPORTS
    texts = [path.read_text(encoding="utf-8") for path in FILES.values()]
    assert sum(text.count("if TYPE_CHECKING:") for text in texts) <= MOST_TYPE_CHECKING_BLOCKS


def test_no_class_shares_its_name_with_another() -> None:
    names = Counter(node.name for path in FILES.values() for node in tree(path).body if isinstance(node, ast.ClassDef))
    assert [name for name, number in names.items() if number > 1] == []


def test_no_module_is_a_lumber_room() -> None:
    parts = {part for folder in ("stages", "flows", "tests") for name in modules(folder) for part in name.split(".")}
    assert not parts & {"utils", "util", "common", "helpers", "misc"}
    assert not [name for name, path in FILES.items() if path.name == "__init__.py" and path.read_text().strip()]
