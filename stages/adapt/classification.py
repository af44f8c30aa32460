"""Adapt for classification: an anchor, a positive of its label, negatives of other labels."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.recipe.recipe import Recipe, load

if TYPE_CHECKING:
    import numpy as np

CURATED = Path("data/curated")
INPUTS = (CURATED, Path("data/extended"))


def main() -> None:
    """Run the stage."""
    params = load()
    from stages.training.launch import launch

    launch(["stages.adapt.classification"], params.engine.processes)
    from stages.training.adaptation import adapt
    from stages.training.dev import clustering_on_dev

    settings = params.adapt.classification
    adapt(
        "classification",
        {"name": params.name, "seed": params.seed, "engine": params.engine.model_dump()},
        settings,
        lambda encoder, projection: build(params, encoder),
        lambda encoder: clustering_on_dev(encoder, CURATED, settings.sources, params.seed),
        max_tokens=settings.max_tokens,
        inputs=INPUTS,
    )


def build(params: Recipe, encoder: Any) -> Any:
    """The objective over labelled texts, its batches, and its rows' names."""
    from stages.corpus.tables import read_split
    from stages.modeling.truncation import check_truncation
    from stages.objectives.classification import Classification
    from stages.objectives.training_texts import texts_of
    from stages.training.batches import shuffled_batches

    settings = params.adapt.classification
    rows = read_split(CURATED, "labelled", "train", settings.sources)
    check_truncation(
        encoder,
        {"document": rows["text"].to_pylist()},
        settings.max_tokens,
        settings.max_truncated_share,
        "adapt.classification",
    )
    texts = texts_of(encoder, rows["text"].to_pylist(), "document", settings.max_tokens)
    labels = [
        f"{source}/{label}" for source, label in zip(rows["source"].to_pylist(), rows["label"].to_pylist(), strict=True)
    ]
    objective = Classification(
        encoder,
        params.distill.matryoshka_dims,
        texts,
        labels,
        num_negatives=settings.num_negatives,
        temperature=settings.temperature,
        seed=params.seed,
        **settings.weights.model_dump(),
    )
    name = f"adapt.classification.sources {', '.join(settings.sources)}"

    def epoch_batches(epoch: int) -> list["np.ndarray"]:
        size = settings.training.batch_size * params.engine.processes
        return shuffled_batches(texts.lengths, size, params.seed, epoch, name)

    return objective, epoch_batches, rows["id"].to_pylist()


if __name__ == "__main__":
    main()
