"""Pairs that people scored for similarity: word lists and the Lee document matrix."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.corpus.entities import components

Record = dict[str, Any]


def word_pairs(files: list[Path], scale: float) -> Iterator[Record]:
    """Tab-separated `word word score`, score in [0, `scale`]; `#` starts a comment.

    The entity is the connected component of a word, so that no word stands in two splits of a source.
    """
    rows = [
        line.split("\t")
        for path in files
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip() and not line.startswith("#")
    ]
    component = components([(left.lower(), right.lower()) for left, right, _ in rows])
    for left, right, score in rows:
        yield {"entity": component[left.lower()], "text_a": left, "text_b": right, "score": float(score) / scale}


def document_matrix(files: list[Path], scale: float, encoding: str) -> Iterator[Record]:
    """A file of documents, one a line, and a tab-separated matrix of their similarities (upper triangle read).

    Every document meets every other, so the whole matrix is one entity.
    """
    corpus, matrix = sorted(files, key=lambda path: path.suffix != ".cor")
    documents = corpus.read_text(encoding=encoding).splitlines()
    rows = [line.split() for line in matrix.read_text(encoding="utf-8").splitlines()]
    for i, row in enumerate(rows):
        for j in range(i + 1, len(row)):
            score = float(row[j]) / scale
            yield {"entity": corpus.stem, "text_a": documents[i], "text_b": documents[j], "score": score}
