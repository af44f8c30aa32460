"""The pairs of the sources that `adapt.retrieval.mixture` names, ready to train on.

Shapes: P pairs.
"""

from dataclasses import dataclass

import numpy as np

from stages.corpus.tables import given_negatives, read_split
from stages.modeling.encoder import Encoder
from stages.modeling.truncation import check_truncation
from stages.objectives.training_texts import TrainingTexts
from stages.recipe.adapt import Retrieval
from stages.recipe.paths import CURATED
from stages.teachers.teacher_vectors import TeacherVectors
from stages.training.batches import MixturePart

SIDES = ("query", "document")


@dataclass(frozen=True)
class MixturePairs:
    """The training pairs of a mixture, source after source, each source cut at its own length."""

    queries: TrainingTexts
    documents: TrainingTexts
    ids: list[str]
    languages: list[str]
    parts: list[MixturePart]  # the rows of each source


def load_pairs(settings: Retrieval, encoder: Encoder, teacher: TeacherVectors, processes: int) -> MixturePairs:
    """Read and tokenise the pairs of a mixture, and look up their teacher vectors.

    Args:
        processes: number of processes, each of which takes the `batch_size` of a source.

    Raises:
        ValueError: too many texts of a source are cut.
    """
    ids: list[str] = []
    languages: list[str] = []
    parts: list[MixturePart] = []
    texts_of: dict[str, list[TrainingTexts]] = {side: [] for side in SIDES}
    for draw in settings.mixture:
        table = read_split(CURATED, "pairs", "train", [draw.source])
        texts = {side: table[side].to_pylist() for side in SIDES}
        name = f"adapt.retrieval.mixture {draw.source}"
        check_truncation(encoder, texts, draw.max_tokens, settings.max_truncated_share, name)
        for side in SIDES:
            vectors = teacher.of(side, texts[side], [draw.source] * len(table))
            texts_of[side].append(TrainingTexts.of(encoder, texts[side], side, draw.max_tokens, vectors))
        rows = np.arange(len(ids), len(ids) + len(table))
        parts.append(MixturePart(name, rows, draw.batch_size * processes, draw.weight))
        ids += table["id"].to_pylist()
        languages += table["language"].to_pylist()
    queries, documents = (TrainingTexts.joined(texts_of[side]) for side in SIDES)
    return MixturePairs(queries, documents, ids, languages, parts)


def with_given_negatives(
    pairs: MixturePairs, settings: Retrieval, encoder: Encoder, teacher: TeacherVectors
) -> tuple[TrainingTexts, dict[int, list[int]]]:
    """Put the negatives that sources themselves name behind the documents.

    A negative that is also a document of its source is not repeated, so that whoever asks for it is not told apart
    from it.

    Returns:
        The P documents and the negatives behind them, and for each pair with negatives its row -> theirs.
    """
    documents, given, num_documents = [pairs.documents], {}, len(pairs.documents)
    for draw, part in zip(settings.mixture, pairs.parts, strict=True):
        table = read_split(CURATED, "pairs", "train", [draw.source])
        row_of = dict(zip(table["document"].to_pylist(), part.rows.tolist(), strict=True))
        added: list[str] = []
        for row, texts in zip(part.rows.tolist(), given_negatives(table), strict=True):
            used = texts[: settings.num_negatives]
            for text in used:
                if text not in row_of:
                    row_of[text] = num_documents + len(added)
                    added.append(text)
            if used:
                given[row] = [row_of[text] for text in used]
        if added:
            vectors = teacher.of("document", added, [draw.source] * len(added))
            documents.append(TrainingTexts.of(encoder, added, "document", draw.max_tokens, vectors))
            num_documents += len(added)
    return TrainingTexts.joined(documents), given
