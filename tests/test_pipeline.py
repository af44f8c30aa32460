"""dvc.yaml against what the stages really import and read, and the import rules that keep the parts apart."""

import ast
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
# DVC follows the values that a stage reads from the recipe, not the code that reads them.
RECIPE_READER = "stages.check"
# What a user runs before a build or on a release, beside the pipeline.
COMMANDS = {"stages.plan", "stages.verify"}
MAY_IMPORT_MLFLOW = {
    "stages.planning.measured",
    "stages.tracking.recorder",
    "stages.tracking.runs",
    "stages.promote",
    "stages.modeling.serving",
    *(f"stages.registry.{name}" for name in ("command", "decisions", "ledger", "lock", "registration", "store")),
}
# `name` only titles what a stage records, unless the stage says that it is part of its output.
TITLE = "name"


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml, its foreach expanded."""

    name: str
    module: str
    params: tuple[str, ...]
    deps: tuple[str, ...]
    outs: tuple[str, ...]

    @property
    def code(self) -> tuple[str, ...]:
        return tuple(dep for dep in self.deps if dep.startswith("stages/"))

    @property
    def data(self) -> tuple[str, ...]:
        return tuple(dep for dep in self.deps if dep.startswith("data/"))


def load_yaml(name: str) -> Any:
    return YAML(typ="safe").load((ROOT / name).read_text(encoding="utf-8"))


def filled(value: Any, key: str, item: dict[str, str]) -> Any:
    """A foreach body with `${key}` and `${item.NAME}` put in, as DVC does."""
    if isinstance(value, dict):
        return {name: filled(part, key, item) for name, part in value.items()}
    if isinstance(value, list):
        return [filled(part, key, item) for part in value]
    if isinstance(value, str):
        value = value.replace("${key}", key)
        for name, text in item.items():
            value = value.replace(f"${{item.{name}}}", text)
    return value


def expanded() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, body in load_yaml("dvc.yaml")["stages"].items():
        if "foreach" in body:
            for key, item in body["foreach"].items():
                yield f"{name}@{key}", filled(body["do"], key, item)
        else:
            yield name, body


def read_stage(name: str, body: dict[str, Any]) -> Stage:
    command = body["cmd"].split()
    assert command[:2] == ["python", "-m"] and len(command) == 3, f"{name}: {body['cmd']}"
    return Stage(
        name,
        command[2],
        tuple(body.get("params", [])),
        tuple(body.get("deps", [])),
        (*body.get("outs", []), *body.get("metrics", [])),
    )


STAGES = [read_stage(name, body) for name, body in expanded()]
WORKING = [stage for stage in STAGES if stage.module != RECIPE_READER]
each_stage = pytest.mark.parametrize("stage", WORKING, ids=lambda stage: stage.name)


def modules(folder: str) -> dict[str, Path]:
    """Modules under a top-level folder by dotted name."""
    files = sorted((ROOT / folder).rglob("*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def running_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes of a tree without the bodies of `if TYPE_CHECKING:`, which never run."""
    yield node
    for child in ast.iter_child_nodes(node):
        typing_only = isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")
        if not typing_only:
            yield from running_nodes(child)


def imported_names(path: Path, typing_too: bool = True) -> set[str]:
    """Dotted names that a module imports, inside functions too; `from a import b` gives `a` and `a.b`."""
    names: set[str] = set()
    for node in ast.walk(tree(path)) if typing_too else running_nodes(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: relative import on line {node.lineno}"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def transitive(module: str) -> set[str]:
    """Modules of stages/ with code in them that running a module imports; never the recipe's reader."""
    known = modules("stages")
    found, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [
                other for other in imported_names(known[name], typing_too=False) & known.keys()
                if other != RECIPE_READER
            ]  # fmt: skip
    return {name for name in found if known[name].name != "__init__.py"}


def covers(dep: str, path: Path) -> bool:
    return (ROOT / dep) == path or (ROOT / dep) in path.parents


def top(name: str) -> str:
    return name.partition(".")[0]


def test_every_stage_is_a_module_of_its_own_name() -> None:
    assert [stage.module.rpartition(".")[2] for stage in STAGES] == [
        stage.name.partition("@")[2].replace("-", "_") or stage.name for stage in STAGES
    ]
    assert {stage.module for stage in STAGES} <= modules("stages").keys()


@each_stage
def test_every_imported_module_is_a_dependency(stage: Stage) -> None:
    known = modules("stages")
    uncovered = [name for name in transitive(stage.module) if not any(covers(dep, known[name]) for dep in stage.code)]
    assert not uncovered, f"dvc.yaml: {stage.name} imports {sorted(uncovered)} and would not re-run"


@each_stage
def test_every_code_dependency_is_imported(stage: Stage) -> None:
    known = modules("stages")
    imported = [known[name] for name in transitive(stage.module)]
    # A file that is shipped, not imported, is named by the code that ships it.
    shipped = {str(node.value) for path in imported for node in ast.walk(tree(path)) if isinstance(node, ast.Constant)}
    idle = [
        dep for dep in stage.code if not any(covers(dep, path) for path in imported) and Path(dep).name not in shipped
    ]
    assert not idle, f"dvc.yaml: {stage.name} would re-run for {idle}, which it does not use"
    assert f"{stage.module.replace('.', '/')}.py" in stage.code


def test_order_is_topological_and_every_data_dependency_is_made_by_an_earlier_stage() -> None:
    made: list[str] = ["data/sources"]  # the user's own files
    for stage in STAGES:
        for dep in stage.data:
            assert any(dep == out or dep.startswith(f"{out}/") for out in made), f"{stage.name}: {dep}"
        made += stage.outs
    outs = [out for stage in STAGES for out in stage.outs]
    assert len(outs) == len(set(outs))


def named_data(stage: Stage) -> dict[Path, str]:
    """Every `Path("data/...")` that a stage reaches, and the module that names it."""
    known = modules("stages")
    return {
        Path(str(node.value)): name
        for name in transitive(stage.module)
        for node in ast.walk(tree(known[name]))
        if isinstance(node, ast.Constant) and str(node.value).startswith("data/")
    }


def meet(place: Path, other: Path) -> bool:
    """Whether they are the same, or one holds the other."""
    return place == other or place in other.parents or other in place.parents


@each_stage
def test_data_that_the_code_names_is_declared(stage: Stage) -> None:
    """Every place that a stage reaches is one of its dependencies or outputs, or holds one."""
    for place, name in named_data(stage).items():
        assert any(meet(place, Path(one)) for one in (*stage.data, *stage.outs)), (
            f"{stage.name}: {name} names {place}, dvc.yaml does not"
        )


@each_stage
def test_every_data_dependency_is_named_by_the_code(stage: Stage) -> None:
    """But the user's own files, which the recipe names, and the check of the recipe, which only comes before."""
    idle = [
        dep
        for dep in stage.data
        if dep not in ("data/sources", "data/checked")
        and not any(meet(Path(dep), place) for place in named_data(stage))
    ]
    assert not idle, f"dvc.yaml: {stage.name} would re-run for {idle}, which it does not read"


@pytest.mark.parametrize(
    "stage",
    [stage for stage in WORKING if "stages.training.checkpoints" in transitive(stage.module)],
    ids=lambda stage: stage.name,
)
def test_a_training_stages_record_and_checkpoints_know_what_it_reads(stage: Stage) -> None:
    """Its lineage and the key of its checkpoints are made of the inputs that DVC follows."""
    inputs = importlib.import_module(stage.module).INPUTS
    assert {dep for dep in stage.data if Path(dep) in inputs} == {str(place) for place in inputs}
    assert all(any(covers(str(place), ROOT / dep) for place in inputs) for dep in stage.data)


def rerun(section: str) -> set[str]:
    """Stages that a changed section of the recipe re-runs: those that list it, and those that read what these make."""
    found: set[str] = set()
    made: list[Path] = []
    for stage in WORKING:
        listed = any(within(key, section) or within(section, key) for key in stage.params)
        if listed or any(meet(Path(dep), out) for dep in stage.data for out in made):
            found.add(stage.name)
            made += map(Path, stage.outs)
    return found


def test_of_the_adapters_only_retrieval_reruns_for_what_is_mined() -> None:
    assert rerun("mine") == {"mine", "adapt@retrieval", "quantize", "evaluate", "promote"}


# parameters


def from_recipe(node: ast.expr) -> bool:
    """Whether an expression is a recipe: `load()`, `params.load()`."""
    return isinstance(node, ast.Call) and ast.unparse(node.func) in ("load", "params.load")


def recipe_variables(module: ast.Module) -> set[str]:
    names = {
        argument.arg
        for function in ast.walk(module)
        if isinstance(function, ast.FunctionDef)
        for argument in function.args.args
        if argument.annotation is not None and ast.unparse(argument.annotation).strip("'\"").endswith("Params")
    }
    return names | {
        target.id
        for node in ast.walk(module)
        if isinstance(node, ast.Assign) and from_recipe(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def chain(node: ast.Attribute) -> tuple[str, list[str]] | None:
    """`a.b.c` as ("a", ["b", "c"])."""
    names: list[str] = []
    value: ast.expr = node
    while isinstance(value, ast.Attribute):
        names.insert(0, value.attr)
        value = value.value
    return (value.id, names) if isinstance(value, ast.Name) else None


def recipe_keys(path: Path) -> set[str]:
    """Keys of the recipe that a module reads, as dvc.yaml would write them; the longest of each chain."""
    module, values = tree(path), load_yaml("params.yaml")
    variables = recipe_variables(module)
    inner = {id(node.value) for node in ast.walk(module) if isinstance(node, ast.Attribute)}
    keys = set()
    for node in ast.walk(module):
        found = chain(node) if isinstance(node, ast.Attribute) and id(node) not in inner else None
        if found and found[0] in variables:
            keys.add(".".join(known_part(values, found[1])))
    return keys - {""}


def known_part(values: Any, names: list[str]) -> list[str]:
    """The part of a chain that names keys of the recipe; what follows is a method or a field of a list."""
    part: list[str] = []
    for name in names:
        spelt = name if isinstance(values, dict) and name in values else name.replace("_", "-")
        if not isinstance(values, dict) or spelt not in values:
            break
        part.append(spelt)
        values = values[spelt]
    return part


def within(key: str, listed: str) -> bool:
    return key == listed or key.startswith(f"{listed}.")


@each_stage
def test_every_parameter_that_a_stage_reads_is_listed(stage: Stage) -> None:
    keys = recipe_keys(modules("stages")[stage.module])
    assert keys, f"{stage.module} reads nothing of the recipe: this test does not understand it"
    unlisted = [key for key in keys - {TITLE} if not any(within(key, listed) for listed in stage.params)]
    assert not unlisted, f"dvc.yaml: {stage.name} reads {sorted(unlisted)} and would not re-run"


@each_stage
def test_every_listed_parameter_exists_and_is_read(stage: Stage) -> None:
    keys = recipe_keys(modules("stages")[stage.module])
    values = load_yaml("params.yaml")
    for listed in stage.params:
        value = values
        for part in listed.split("."):
            assert part in value, f"dvc.yaml: {stage.name} lists {listed}, params.yaml has no such key"
            value = value[part]
    idle = [one for one in stage.params if not any(within(key, one) or within(one, key) for key in keys)]
    if stage.name.startswith("adapt@"):  # one list for four tasks: each reads what its objective needs
        siblings = [modules("stages")[other.module] for other in STAGES if other.name.startswith("adapt@")]
        idle = [one for one in idle if not any(within(key, one) for path in siblings for key in recipe_keys(path))]
    assert not idle, f"dvc.yaml: {stage.name} would re-run for {idle}, which it does not read"


# import rules

STAGE_MODULES = {stage.module for stage in STAGES}
LIBRARY = sorted(
    name
    for name, path in modules("stages").items()
    if name not in STAGE_MODULES | COMMANDS and path.name != "__init__.py"
)


def test_every_module_right_under_stages_is_a_stage_or_a_command() -> None:
    """What is listed below as library really is in a folder of its own."""
    assert {
        name for name in modules("stages") if name.count(".") == 1 and not (ROOT / name.replace(".", "/")).is_dir()
    } == {name for name in STAGE_MODULES | COMMANDS if name.count(".") == 1}


@pytest.mark.parametrize("name", LIBRARY)
def test_library_never_imports_the_recipe_nor_a_stage(name: str) -> None:
    wrong = imported_names(modules("stages")[name]) & (STAGE_MODULES | COMMANDS)
    assert not wrong, f"{name} imports {sorted(wrong)}: values arrive as arguments"
    assert not {"dvc", "prefect"} & {top(one) for one in imported_names(modules("stages")[name])}


@pytest.mark.parametrize("name", sorted(STAGE_MODULES | COMMANDS))
def test_a_stage_never_imports_another(name: str) -> None:
    wrong = imported_names(modules("stages")[name]) & (STAGE_MODULES - {RECIPE_READER})
    assert not wrong, f"{name} imports {sorted(wrong)}: stages meet through files under data/"


@pytest.mark.parametrize("name", [name for name in LIBRARY if name.startswith("stages.losses.")])
def test_losses_import_torch_and_losses_only(name: str) -> None:
    standard = {"collections", "typing", "math"}
    wrong = {
        one
        for one in imported_names(modules("stages")[name])
        if top(one) not in {"torch", *standard} and not one.startswith("stages.losses")
    }
    assert not wrong


@pytest.mark.parametrize("name", sorted(modules("flows")))
def test_flows_import_neither_torch_nor_stages(name: str) -> None:
    names = imported_names(modules("flows")[name])
    assert "torch" not in {top(one) for one in names}
    wrong = {one for one in names if top(one) == "stages"} & modules("stages").keys()
    assert wrong <= {"stages", RECIPE_READER}


def test_only_the_record_keepers_import_mlflow() -> None:
    using = {name for name, path in modules("stages").items() if "mlflow" in {top(one) for one in imported_names(path)}}
    assert using <= MAY_IMPORT_MLFLOW
    assert "stages.tracking.recorder" in using  # else this test looks at nothing


def test_no_module_is_a_lumber_room() -> None:
    names = {part for folder in ("stages", "flows", "tests") for name in modules(folder) for part in name.split(".")}
    assert not names & {"utils", "util", "common", "helpers", "misc"}
    written = [path for folder in ("stages", "flows") for path in (ROOT / folder).rglob("__init__.py")]
    assert not [path for path in written if path.read_text().strip()], "an __init__.py is empty"
