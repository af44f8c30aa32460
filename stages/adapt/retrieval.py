"""Adapt for retrieval: triplets of query, document and mined hard negatives."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.recipe.recipe import Recipe, load

if TYPE_CHECKING:
    import numpy as np

CURATED = Path("data/curated")
EMBEDDED = Path("data/embedded")
MINED = Path("data/mined")
INPUTS = (CURATED, EMBEDDED, MINED, Path("data/extended"))


def main() -> None:
    """Run the stage."""
    params = load()
    from stages.training.launch import launch

    launch(["stages.adapt.retrieval"], params.engine.processes)
    from stages.training.adaptation import adapt
    from stages.training.dev import retrieval_on_dev

    settings = params.adapt.retrieval
    adapt(
        "retrieval",
        {"name": params.name, "seed": params.seed, "engine": params.engine.model_dump()},
        settings,
        lambda encoder, projection: build(params, encoder, projection),
        lambda encoder: retrieval_on_dev(encoder, CURATED, [draw.source for draw in settings.mixture]),
        max_tokens=max(draw.max_tokens for draw in settings.mixture),
        inputs=INPUTS,
        average=(settings.average.earlier, settings.average.weight),
    )


def build(params: Recipe, encoder: Any, projection: Any) -> Any:
    """The objective over every training pair with enough hard negatives, its batches, and its rows' names."""
    import numpy as np

    from stages.corpus.tables import read_split, read_table
    from stages.modeling.truncation import check_truncation
    from stages.objectives.retrieval import Retrieval
    from stages.objectives.training_texts import Texts, joined, texts_of
    from stages.teachers.teacher_vectors import TeacherVectors
    from stages.training.batches import Part, by_language, drawn_batches

    settings = params.adapt.retrieval
    mixture = settings.mixture
    teacher = TeacherVectors(EMBEDDED, params.embed)
    tables = [read_split(CURATED, "pairs", "train", [draw.source]) for draw in mixture]
    ids = [name for table in tables for name in table["id"].to_pylist()]
    for draw, table in zip(mixture, tables, strict=True):
        texts = {side: table[side].to_pylist() for side in ("query", "document")}
        check_truncation(
            encoder, texts, draw.max_tokens, settings.max_truncated_share, f"adapt.retrieval.mixture {draw.source}"
        )

    def side(name: str) -> Texts:
        """All texts of a side, each source cut at its own length."""
        texts = [table[name].to_pylist() for table in tables]
        return joined(
            [
                texts_of(encoder, part, name, draw.max_tokens, teacher.of(name, part, [draw.source] * len(part)))
                for draw, part in zip(mixture, texts, strict=True)
            ]
        )

    queries, documents = side("query"), side("document")
    mined = read_table(MINED / "negatives.parquet")
    negatives_of = dict(zip(mined["id"].to_pylist(), mined["negatives"].to_pylist(), strict=True))
    negatives = hard_negatives(ids, negatives_of, settings.num_negatives)
    objective = Retrieval(
        encoder,
        projection,
        params.distill.matryoshka_dims,
        queries,
        documents,
        negatives,
        temperature=settings.temperature,
        false_negative_margin=settings.false_negative_margin,
        **settings.weights.model_dump(),
    )
    starts = np.cumsum([0, *map(len, tables)])
    enough = np.flatnonzero((negatives >= 0).all(axis=1))
    of_source = [
        Part(
            f"adapt.retrieval.mixture {draw.source}",
            enough[(enough >= start) & (enough < end)],
            draw.batch_size * params.engine.processes,
            draw.weight,
        )
        for draw, (start, end) in zip(mixture, itertools.pairwise(starts.tolist()), strict=True)
    ]
    for part in of_source:
        if len(part.rows) < part.batch_size:
            raise ValueError(
                f"{part.name}: got {len(part.rows)} pairs with {settings.num_negatives} mined negatives, expected at "
                f"least the {part.batch_size} of a batch (batch_size x engine.processes); lower batch_size or "
                "num_negatives, or have mine find more (rank_window, relative_margin, absolute_margin; "
                "data/mined/audit.html)"
            )
    languages = [language for table in tables for language in table["language"].to_pylist()]
    drawn = by_language(of_source, languages, settings.language_exponent)

    def epoch_batches(epoch: int) -> list[np.ndarray]:
        return drawn_batches(drawn, documents.lengths, params.seed, epoch)

    return objective, epoch_batches, ids


def hard_negatives(ids: Sequence[str], mined: dict[str, list[str]], num_negatives: int) -> "np.ndarray":
    """Row numbers [pairs, num_negatives] of each pair's hardest negatives; -1 where mining kept too few."""
    import numpy as np

    row_of = {name: row for row, name in enumerate(ids)}
    negatives = np.full((len(ids), num_negatives), -1)
    for row, name in enumerate(ids):
        found = [row_of[negative] for negative in mined[name][:num_negatives]]
        negatives[row, : len(found)] = found
    return negatives


if __name__ == "__main__":
    main()
