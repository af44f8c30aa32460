"""Adapt for clustering: distillation again, from the teacher under its clustering instruction."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.recipe.recipe import Recipe, load

if TYPE_CHECKING:
    import numpy as np

CURATED = Path("data/curated")
EMBEDDED = Path("data/embedded")
INPUTS = (CURATED, EMBEDDED, Path("data/extended"))


def main() -> None:
    """Run the stage."""
    params = load()
    from stages.training.launch import launch

    launch(["stages.adapt.clustering"], params.engine.processes)
    from stages.training.adaptation import adapt
    from stages.training.dev import clustering_on_dev

    settings = params.adapt.clustering
    adapt(
        "clustering",
        {"name": params.name, "seed": params.seed, "engine": params.engine.model_dump()},
        settings,
        lambda encoder, projection: build(params, encoder, projection),
        lambda encoder: clustering_on_dev(encoder, CURATED, params.adapt.classification.sources, params.seed),
        max_tokens=settings.max_tokens,
        inputs=INPUTS,
    )


def build(params: Recipe, encoder: Any, projection: Any) -> Any:
    """The objective over both texts of the pairs, read as documents, its batches, and its rows' names."""
    from stages.corpus.tables import read_split
    from stages.modeling.truncation import check_truncation
    from stages.objectives.distillation import Distillation
    from stages.objectives.training_texts import texts_of
    from stages.teachers.teacher_vectors import TeacherVectors
    from stages.training.batches import shuffled_batches

    settings = params.adapt.clustering
    pairs = read_split(CURATED, "pairs", "train", settings.sources)
    texts = pairs["query"].to_pylist() + pairs["document"].to_pylist()
    check_truncation(
        encoder, {"document": texts}, settings.max_tokens, settings.max_truncated_share, "adapt.clustering"
    )
    teacher = TeacherVectors(EMBEDDED, params.embed)
    vectors = teacher.of("clustering", texts, pairs["source"].to_pylist() * 2)
    data = texts_of(encoder, texts, "document", settings.max_tokens, vectors)
    objective = Distillation(encoder, projection.requires_grad_(False), params.distill.matryoshka_dims, data)
    name = f"adapt.clustering.sources {', '.join(settings.sources)}"

    def epoch_batches(epoch: int) -> list["np.ndarray"]:
        size = settings.training.batch_size * params.engine.processes
        return shuffled_batches(data.lengths, size, params.seed, epoch, name)

    return objective, epoch_batches, pairs["id"].to_pylist() * 2


if __name__ == "__main__":
    main()
