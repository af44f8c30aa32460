"""Adapt for retrieval: triplets of query, document and mined hard negatives."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.params import Params, load

if TYPE_CHECKING:
    import numpy as np

CURATED = Path("data/curated")
EMBEDDED = Path("data/embedded")
MINED = Path("data/mined")
INPUTS = (CURATED, EMBEDDED, MINED, Path("data/distilled"))


def main() -> None:
    """Run the stage."""
    params = load()
    from stages.training.adaptation import adapt
    from stages.training.dev import retrieval_on_dev

    settings = params.adapt.retrieval
    adapt(
        "retrieval",
        {"name": params.name, "seed": params.seed, "engine": params.engine.model_dump()},
        settings,
        lambda encoder, projection: build(params, encoder, projection),
        lambda encoder: retrieval_on_dev(encoder, CURATED, settings.sources),
        inputs=INPUTS,
        average=(settings.average.earlier, settings.average.weight),
    )


def build(params: Params, encoder: Any, projection: Any) -> Any:
    """The objective over every training pair with enough hard negatives, and its batches."""
    import numpy as np

    from stages.corpus.batches import shuffled_batches
    from stages.corpus.tables import read_split, read_table
    from stages.corpus.vectors import VectorStore
    from stages.objectives.retrieval import Retrieval
    from stages.objectives.texts import texts_of

    settings, prompts, store = params.adapt.retrieval, params.embed.prompts, VectorStore(EMBEDDED)
    pairs = read_split(CURATED, "pairs", "train", settings.sources)
    mined = read_table(MINED / "negatives.parquet")
    negatives = hard_negatives(
        pairs["id"].to_pylist(),
        dict(zip(mined["id"].to_pylist(), mined["negatives"].to_pylist(), strict=True)),
        settings.num_negatives,
    )
    texts = {side: pairs[side].to_pylist() for side in ("query", "document")}
    queries, documents = (
        texts_of(encoder, texts[side], side, store.texts(prompts[side], texts[side])) for side in ("query", "document")
    )
    enough = (negatives >= 0).all(axis=1)
    sources = np.asarray(pairs["source"].to_pylist())
    rows_of = {source: np.flatnonzero(enough & (sources == source)) for source in settings.sources}
    objective = Retrieval(
        encoder,
        projection,
        params.distill.matryoshka_dims,
        queries,
        documents,
        negatives,
        temperature=settings.temperature,
        **settings.weights.model_dump(),
    )

    def epoch_batches(epoch: int) -> list[np.ndarray]:
        # A batch holds one source, so that its in-batch negatives are of the same kind as the positive.
        batches = [
            rows[batch]
            for rows in rows_of.values()
            for batch in shuffled_batches(
                [documents.lengths[row] for row in rows], settings.training.batch_size, params.seed, epoch
            )
        ]
        return [batches[i] for i in np.random.default_rng([params.seed, epoch]).permutation(len(batches))]

    return objective, epoch_batches


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
