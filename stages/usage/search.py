"""The command `stillhouse search`: what the champion, its teacher and BM25 find for a question, side by side.

Shapes: C documents, D embedding dimension (the teacher has its own).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from stages.corpus.normalisation import normalise
from stages.corpus.tables import SPLITS, read_table
from stages.evaluation.embedding_cache import EmbeddingCache
from stages.evaluation.queries import shortened
from stages.metrics.lexical import bm25_search
from stages.recipe.paths import CURATED, EMBEDDED, EVALUATED_VECTORS
from stages.recipe.recipe import Recipe, read
from stages.teachers.loading import load_teacher
from stages.teachers.teacher import reading_rule
from stages.teachers.teacher_vectors import TeacherVectors
from stages.tracking.digests import digest
from stages.usage.release import release_in_use, task_model

WIDE = 110  # characters of a terminal that shows the lists side by side
TEXT_COLUMNS = {"pairs": "document", "documents": "text"}


class Hit(NamedTuple):
    """A document that was found, with its score."""

    score: float
    source: str
    text: str


def search(question: str, *, top: int = 5, source: tuple[str, ...] = (), release: Path | None = None) -> None:
    """Show the documents of the last build that the champion, its teacher and BM25 find for a question.

    Args:
        question: the question, or any query.
        top: documents to show of each.
        source: sources whose documents are searched; none for all.
        release: release folder; without it the registry's champion, or the last build's where there is none.

    Raises:
        ValueError: there is no build, the release has no retrieval task, or there are no documents.

    Example:
        >>> search("how do plants make sugar?", top=3)
    """
    if not normalise(question) or top < 1:
        raise ValueError(f"got the question {question!r} and --top {top}, expected a text and at least 1")
    recipe, used = read(), release_in_use(release)
    documents = _documents(source)
    found = {used.chosen: _by_release(used.folder, question, documents, top)}
    notes = []
    try:
        found["teacher"], number = _by_teacher(recipe, question, documents, top)
        if number < len(documents):
            notes.append(f"the teacher has embedded {number} of the {len(documents)} documents, and finds only those")
    except Exception as error:  # whatever keeps the teacher away, the other columns are still of use
        notes.append(f"the teacher is left out: {' '.join(str(error).split())[:200]}")
    found["BM25"] = _by_bm25(recipe, question, documents, top)
    console = Console()
    _show(console, found)
    console.print(*notes, f"{len(documents)} documents of {CURATED}", sep="\n", markup=False)


def _documents(sources: Sequence[str]) -> list[tuple[str, str]]:
    """Read the source and text of every curated document of the last build, each text once."""
    tables = [
        read_table(CURATED / kind / f"{split}.parquet", list(sources) or None).select(["source", column])
        for kind, column in TEXT_COLUMNS.items()
        for split in SPLITS
        if (CURATED / kind / f"{split}.parquet").is_file()
    ]
    named = [table.rename_columns(["source", "text"]) for table in tables]
    distinct = {row["text"]: row["source"] for table in named for row in table.to_pylist()}
    if not distinct:
        place = f" of {', '.join(sources)}" if sources else ""
        raise ValueError(f"{CURATED}: there are no documents{place}; run `make build` first, or correct --source")
    return [(name, text) for text, name in distinct.items()]


def _by_release(folder: Path, question: str, documents: Sequence[tuple[str, str]], top: int) -> list[Hit]:
    model = task_model(folder, "retrieval")

    def embed(texts: Sequence[str], side: str) -> np.ndarray:
        return model.encode(
            list(texts), prompt_name=side, normalize_embeddings=True, show_progress_bar=len(texts) > 100
        )

    # A document's vectors are computed once for a release, so that the next search answers at once.
    cached = EmbeddingCache(EVALUATED_VECTORS).cached(embed, "search", digest(folder / "merged" / "retrieval"))
    vectors = cached([text for _, text in documents], "document")
    return _nearest(embed([question], "query")[0], vectors, documents, top)


def _by_teacher(recipe: Recipe, question: str, documents: Sequence[tuple[str, str]], top: int) -> tuple[list[Hit], int]:
    """Search the documents that the teacher has embedded for the build; returns their number too."""
    store, read_by_teacher, vectors = TeacherVectors(EMBEDDED, recipe.embed), [], []
    for source in dict.fromkeys(name for name, _ in documents):
        of_source = [document for document in documents if document[0] == source]
        try:
            vectors.append(store.of("document", [text for _, text in of_source], [source] * len(of_source)))
        except KeyError:  # the build had no use for the teacher's vectors of this source
            continue
        read_by_teacher += of_source
    if not vectors:
        raise ValueError("the build has no vectors of these documents by the teacher")
    query = load_teacher(recipe.embed, recipe.engine).embed([question], reading_rule(recipe.embed, "query", ""))[0]
    hits = _nearest(query, np.concatenate(vectors).astype(np.float32), read_by_teacher, top)
    return hits, len(read_by_teacher)


def _by_bm25(recipe: Recipe, question: str, documents: Sequence[tuple[str, str]], top: int) -> list[Hit]:
    texts, settings = [text for _, text in documents], recipe.evaluate.bm25
    ranked, scores = bm25_search([question], texts, top, settings.k1, settings.b)
    pairs = zip(ranked[0], scores[0], strict=True)
    return [Hit(float(score), *documents[row]) for row, score in pairs if score > 0]


def _nearest(query: np.ndarray, vectors: np.ndarray, documents: Sequence[tuple[str, str]], top: int) -> list[Hit]:
    """Return the documents whose unit vectors [C, D] have the largest dot product with the query's [D]."""
    scores = vectors @ query
    return [Hit(float(scores[row]), *documents[row]) for row in np.argsort(-scores, kind="stable")[:top]]


def _show(console: Console, found: dict[str, list[Hit]]) -> None:
    """Print the lists side by side, or one below another where the terminal is narrow."""
    groups = [list(found)] if console.width >= WIDE else [[name] for name in found]
    for names in groups:
        table = Table("", *names, show_lines=True, expand=True)
        for rank in range(max(len(found[name]) for name in names)):
            table.add_row(str(rank + 1), *(_cell(found[name], rank) for name in names))
        console.print(table)


def _cell(hits: Sequence[Hit], rank: int) -> str:
    if rank >= len(hits):
        return "" if rank else "nothing found"
    hit = hits[rank]
    return f"{hit.score:.3f} {hit.source}\n{shortened(hit.text)}".replace("[", r"\[")
