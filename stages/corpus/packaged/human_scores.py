"""Pairs that people scored for similarity: word lists, and the Lee matrix of documents."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stages.corpus.entities import smallest_connected
from stages.corpus.records import Row


def word_pairs(files: list[Path], scale: float) -> Iterator[Row]:
    """Read tab-separated lines `word word score`, score in [0, `scale`]; `#` starts a comment.

    The entity is the connected component of a word, so that no word occurs in two splits of a source.
    """
    rows = [
        line.split("\t")
        for path in files
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip() and not line.startswith("#")
    ]
    entities = smallest_connected(np.array([(left.lower(), right.lower()) for left, right, _ in rows])).tolist()
    for (left, right, score), entity in zip(rows, entities, strict=True):
        yield {"entity": entity, "text_a": left, "text_b": right, "score": float(score) / scale}


def document_matrix(files: list[Path], scale: float, encoding: str) -> Iterator[Row]:
    """Read a file of documents, one a line, and the upper triangle of a tab-separated matrix of their similarities.

    Every document is paired with every other, so the whole matrix is one entity.
    """
    corpus, matrix = sorted(files, key=lambda path: path.suffix != ".cor")
    documents = corpus.read_text(encoding=encoding).splitlines()
    rows = [line.split() for line in matrix.read_text(encoding="utf-8").splitlines()]
    for i, row in enumerate(rows):
        for j in range(i + 1, len(row)):
            score = float(row[j]) / scale
            yield {"entity": corpus.stem, "text_a": documents[i], "text_b": documents[j], "score": score}
