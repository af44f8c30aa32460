"""The documents: the site builds strictly, and every link, command, file and module that they name exists."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli import COMMANDS
from tests.checkouts import ROOT

TOP_LEVEL = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
POINTERS = [ROOT / name for name in ("data/README.md", "deploy/README.md", "deploy/recipes/README.md")]
SITE = sorted((ROOT / "docs").rglob("*.md"))
# The history names commands and modules of earlier versions.
PRESENT = [page for page in (*TOP_LEVEL, *POINTERS, *SITE) if page.name != "CHANGELOG.md"]
each_page = pytest.mark.parametrize("page", PRESENT, ids=lambda page: str(page.relative_to(ROOT)))

LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)|<img src=\"([^\"]+)\"")
COMMAND = re.compile(r"\bstillhouse ([a-z][a-z-]*)")
MODULE = re.compile(r"\b(?:stages|flows|tests)(?:\.[a-z_0-9]+)+\b")
FILE = re.compile(r"(?<![\w/.-])(?:stages|flows|tests|deploy|docs)/[\w./-]*\w")
# Made by a user or by a build; the last is the name of a resource of Kubernetes.
NOT_IN_THE_CHECKOUT = {"deploy/.env", "deploy/mounts.yaml", "docs/_build", "deploy/worker"}
COMMAND_LINE = re.compile(r"^stillhouse |`stillhouse ", re.MULTILINE)


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def is_module(name: str) -> bool:
    """Whether a dotted name is a module or a name inside a module of this project."""
    path = ROOT / name.replace(".", "/")
    inner = path.parent.with_suffix(".py")
    is_inside = inner.is_file() and re.search(
        rf"^(?:def|class) {path.name}\b|^{path.name} =", text(inner), re.MULTILINE
    )
    return path.is_dir() or path.with_suffix(".py").is_file() or bool(is_inside)


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    options = ("--quiet", "--fail-on-warning", "--builder", "html", "--doctree-dir", str(tmp_path / "trees"))
    command = [sys.executable, "-m", "sphinx", *options, "docs", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {page.relative_to(ROOT / "docs").with_suffix(".html") for page in SITE}
    assert all((tmp_path / "site" / page).is_file() for page in pages)


@pytest.mark.parametrize("page", [*TOP_LEVEL, *POINTERS], ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_to_files(page: Path) -> None:
    links = [link or image for link, image in LINK.findall(text(page))]
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing, f"{page.name} links to {missing}"


@each_page
def test_every_command_exists(page: Path) -> None:
    named = [
        command
        for line in text(page).splitlines()
        if COMMAND_LINE.search(line) or line.startswith("## stillhouse ")
        for command in COMMAND.findall(line)
    ]
    assert not set(named) - COMMANDS.keys(), f"{page.name} names unknown commands"


def test_the_reference_describes_every_command() -> None:
    described = re.findall(r"^## stillhouse (\S+)$", text(ROOT / "docs/reference/commands.md"), re.MULTILINE)
    assert sorted(described) == sorted(COMMANDS)


@each_page
def test_every_module_and_file_exists(page: Path) -> None:
    modules = [name for name in MODULE.findall(text(page)) if not is_module(name)]
    assert not modules, f"{page.name} names modules that are not there: {modules}"
    files = [name for name in FILE.findall(text(page)) if not (name in NOT_IN_THE_CHECKOUT or (ROOT / name).exists())]
    assert not files, f"{page.name} names files that are not there: {files}"


def test_the_readme_is_a_page() -> None:
    lines = text(ROOT / "README.md").splitlines()
    assert len(lines) <= 130
    assert {"make build", "make test"} <= {line.partition("#")[0].strip() for line in lines}
