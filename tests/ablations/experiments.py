"""DVC experiments in a clone, so that nothing in the project's working tree changes while they run.

The clone is under .stillhouse and shares the project's DVC cache and run cache: stages of a build or an earlier variant
are not run again. Finished experiments are fetched into the project, where `dvc exp show` lists them under their
commit. An experiment's name ends in a digest of its code, recipe and text, so that it is found again after an
interruption and never mistaken for another.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from dvc.api import DVCFileSystem
from ruamel.yaml import YAML

from stages.recipe.process_environment import child_environment

STAGES = Path(__file__).with_name("stages.yaml")
# Paths in git on which an experiment's result depends.
DEPENDENCIES = (
    "params.yaml",
    "dvc.yaml",
    "stages",
    "tests/ablations/stages.yaml",
    "tests/ablations/score.py",
    "tests/ablations/comparison.py",
    "tests/ablations/joint.py",
)
TEXT = Path("data/sources")  # the user's own files, which are not in git
PREFIX = "ablation"
DVC = (sys.executable, "-m", "dvc")


class ExperimentError(RuntimeError):
    """An experiment that cannot be started, or that failed."""


class ExperimentClone:
    """A clone of a project, and the experiments that run in it.

    Raises:
        ExperimentError: the project has no commit, or `DEPENDENCIES` differ from it.
    """

    def __init__(self, project: Path, tracking_uri: str) -> None:
        self.project, self.clone = project.resolve(), project.resolve() / ".stillhouse/ablations"
        self.environment = {
            **child_environment(),
            # Stages run with this Python, whether or not its environment is activated.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "MLFLOW_TRACKING_URI": tracking_uri,
            "DVC_NO_ANALYTICS": "true",
        }
        self.commit = self._commit()
        self._contents = self._git("ls-tree", self.commit, "--", *DEPENDENCIES) + _digest(self.project / TEXT)

    def name(self, variant: str, overrides: dict[str, Any]) -> str:
        """Name a variant's experiment."""
        digest = hashlib.sha256((self._contents + json.dumps(overrides, sort_keys=True)).encode()).hexdigest()
        return f"{PREFIX}-{variant}-{digest[:8]}"

    def revision(self, name: str) -> str | None:
        """Find the commit of a finished experiment; None where there is none of that name."""
        for line in self._git("for-each-ref", "--format=%(objectname) %(refname)", "refs/exps").splitlines():
            commit, reference = line.split()
            if reference.endswith(f"/{name}"):
                return commit
        return None

    def prepare(self) -> None:
        """Make the clone, or update it to the project's commit."""
        if not (self.clone / ".git").exists():
            shutil.rmtree(self.clone, ignore_errors=True)
            self._git("clone", "--quiet", "--no-checkout", str(self.project), str(self.clone))
        cache = subprocess.run([*DVC, "cache", "dir"], cwd=self.project, check=True, capture_output=True, text=True)
        self._in_clone("fetch", "--quiet", "origin", self.commit)
        self._in_clone("checkout", "--quiet", "--force", "--detach", self.commit)
        # DVC commits every experiment, and git may have no user name on this machine.
        self._in_clone("config", "user.name", "ablations")
        self._in_clone("config", "user.email", "ablations@localhost")
        (self.clone / ".dvc/config.local").write_text(f"[cache]\n    dir = {cache.stdout.strip()}\n", encoding="utf-8")

    def run(self, name: str, overrides: dict[str, Any], targets: Sequence[str]) -> None:
        """Run stages with some values of the recipe changed, as one experiment; their output is passed on.

        Raises:
            ExperimentError: a stage failed.
        """
        self._reset(targets)
        for reference in self._references(name):  # of a run that was not fetched, or was removed from the project
            self._in_clone("update-ref", "-d", reference)
        changes = [f"--set-param={key}={_value(value)}" for key, value in overrides.items()]
        command = [*DVC, "exp", "run", "--name", name, *changes, *targets]
        environment = self.environment | {"STILLHOUSE_BUILD": name}
        if subprocess.run(command, cwd=self.clone, env=environment, check=False).returncode:
            raise ExperimentError(f"experiment {name} failed in {self.clone}; its output is above")
        self._git(
            "fetch", "--quiet", str(self.clone), *(f"+{reference}:{reference}" for reference in self._references(name))
        )

    def table(self, name: str, path: str) -> Any:
        """Read an Arrow table of an experiment from the cache.

        Raises:
            ExperimentError: the cache no longer has it.
        """
        # As bytes: Arrow's threads, reading a Python stream, can outlive the interpreter and abort it.
        try:
            content = DVCFileSystem(str(self.project), rev=self.revision(name)).read_bytes(path)
        except FileNotFoundError as error:
            raise ExperimentError(f"{error}: remove the experiment (dvc exp remove {name}) and run again") from error
        return pq.read_table(pa.BufferReader(content), use_threads=False)

    def _commit(self) -> str:
        try:
            commit = self._git("rev-parse", "--verify", "HEAD").strip()
        except subprocess.CalledProcessError as error:
            raise ExperimentError(f"{self.project}: experiments need a git repository with a commit") from error
        changed = self._git("status", "--porcelain", "--", *DEPENDENCIES)
        if changed:
            raise ExperimentError(f"experiments are made of the last commit; commit or undo first:\n{changed.rstrip()}")
        return commit

    def _reset(self, targets: Sequence[str]) -> None:
        """Reset the clone to the commit, add the targets' stages to dvc.yaml, and copy what is not in git."""
        self._in_clone("reset", "--quiet", "--hard", self.commit)
        yaml = YAML(typ="safe")
        pipeline, added = yaml.load(self.clone / "dvc.yaml"), yaml.load(STAGES)["stages"]
        names = {target.partition("@")[0] for target in targets}
        if "score-joint" in names:
            names.add("joint")
        # DVC would warn of each missing output of the other stages.
        pipeline["stages"] |= {name: stage for name, stage in added.items() if name in names}
        yaml.dump(pipeline, self.clone / "dvc.yaml")
        if (self.project / "dvc.lock").exists():
            shutil.copy(self.project / "dvc.lock", self.clone)
        shutil.copytree(self.project / TEXT, self.clone / TEXT, copy_function=shutil.copyfile, dirs_exist_ok=True)

    def _references(self, name: str) -> list[str]:
        """List an experiment's references in the clone."""
        references = self._in_clone("for-each-ref", "--format=%(refname)", "refs/exps").split()
        return [reference for reference in references if reference.endswith(f"/{name}")]

    def _git(self, *arguments: str) -> str:
        return _run(self.project, "git", *arguments)

    def _in_clone(self, *arguments: str) -> str:
        return _run(self.clone, "git", *arguments)


def _run(folder: Path, *command: str) -> str:
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def _digest(folder: Path) -> str:
    """Digest of the names and contents of a folder's files."""
    total = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        total.update(str(file.relative_to(folder)).encode())
        with file.open("rb") as content:
            total.update(hashlib.file_digest(content, "sha256").digest())
    return total.hexdigest()


def _value(value: Any) -> str:
    """Write a value for DVC's overrides, in Hydra's grammar."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_value(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_value, value)) + "]"
    return value if isinstance(value, str) else json.dumps(value)
