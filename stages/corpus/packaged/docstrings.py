"""Docstrings of Python packages, parsed and never imported: summary -> body."""

import ast
import functools
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from stages.corpus.records import FIRST_SENTENCE, Row

Documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

_DOCTEST = re.compile(r"^\s*(>>>|\.\.\.)")
_UNDERLINE = re.compile(r"^\s*[-=~^]{3,}\s*$")


def pairs(files: list[Path]) -> Iterator[Row]:
    """Yield pairs of summary -> body for each public function and class; the entity is the module."""
    for path, summary, body in _docstrings(tuple(files)):
        yield {"entity": _module(path), "query": summary, "document": body, "origin": FIRST_SENTENCE}


def packages(files: list[Path]) -> Iterator[Row]:
    """Yield bodies of docstrings, labelled with their top-level package."""
    for path, _, body in _docstrings(tuple(files)):
        module = _module(path)
        yield {"entity": module, "text": body, "label": module.partition(".")[0]}


@functools.cache
def _docstrings(files: tuple[Path, ...]) -> list[tuple[Path, str, str]]:
    """Parse files once for all sources that read them, since parsing takes seconds."""
    return [
        (path, *summary_and_body(docstring))
        for path in files
        if "tests" not in path.parts
        for node in _public(ast.parse(path.read_text(encoding="utf-8"), filename=str(path)))
        if (docstring := ast.get_docstring(node))
    ]


def _public(scope: ast.Module | ast.ClassDef) -> Iterator[Documented]:
    """Yield public classes, functions and methods, but nothing inside functions."""
    for node in scope.body:
        if isinstance(node, Documented) and not node.name.startswith("_"):
            yield node
        if isinstance(node, ast.ClassDef):
            yield from _public(node)


def summary_and_body(docstring: str) -> tuple[str, str]:
    """Split a docstring into its first paragraph and the prose after it, without doctests and underlines."""
    lines = inspect.cleandoc(docstring).splitlines()
    prose = [line for line in lines if not _DOCTEST.match(line) and not _UNDERLINE.match(line)]
    summary, _, body = "\n".join(prose).strip().partition("\n\n")
    return " ".join(summary.split()), " ".join(body.split())


def _module(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[parts.index("site-packages") + 1 :] if "site-packages" in parts else parts)
