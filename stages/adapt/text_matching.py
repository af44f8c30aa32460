"""Adapt for text matching (STS): pairs scored by people, and pairs without scores."""

from pathlib import Path
from typing import Any

from stages.recipe.recipe import Recipe, load

CURATED = Path("data/curated")
EMBEDDED = Path("data/embedded")
INPUTS = (CURATED, EMBEDDED, Path("data/extended"))


def main() -> None:
    """Run the stage."""
    params = load()
    from stages.training.launch import launch

    launch(["stages.adapt.text_matching"], params.engine.processes)
    from stages.training.adaptation import adapt
    from stages.training.dev import similarity_on_dev

    settings = params.adapt.text_matching
    adapt(
        "text-matching",
        {"name": params.name, "seed": params.seed, "engine": params.engine.model_dump()},
        settings,
        lambda encoder, projection: build(params, encoder, projection),
        lambda encoder: similarity_on_dev(encoder, CURATED, settings.scored_sources),
        max_tokens=settings.max_tokens,
        inputs=INPUTS,
    )


def build(params: Recipe, encoder: Any, projection: Any) -> Any:
    """The objective over scored pairs, then pairs without scores, its batches of one kind each, and its rows' names."""
    import numpy as np

    from stages.corpus.tables import read_split
    from stages.modeling.truncation import check_truncation
    from stages.objectives.text_matching import TextMatching
    from stages.objectives.training_texts import texts_of
    from stages.teachers.teacher_vectors import TeacherVectors
    from stages.training.batches import mixed_batches, shuffled_batches

    settings = params.adapt.text_matching
    teacher = TeacherVectors(EMBEDDED, params.embed)
    scored = read_split(CURATED, "scored", "train", settings.scored_sources)
    pairs = read_split(CURATED, "pairs", "train", settings.pair_sources)
    sources = scored["source"].to_pylist() + pairs["source"].to_pylist()
    sides = [
        scored[first].to_pylist() + pairs[second].to_pylist()
        for first, second in (("text_a", "query"), ("text_b", "document"))
    ]
    check_truncation(
        encoder,
        {"document": [text for texts in sides for text in texts]},
        settings.max_tokens,
        settings.max_truncated_share,
        "adapt.text-matching",
    )
    left, right = (
        texts_of(encoder, texts, "document", settings.max_tokens, teacher.of("document", texts, sources))
        for texts in sides
    )
    objective = TextMatching(
        encoder,
        projection,
        params.distill.matryoshka_dims,
        left,
        right,
        scored["score"].to_numpy(),
        temperature=settings.temperature,
        cosent_temperature=settings.cosent_temperature,
        **settings.weights.model_dump(),
    )
    of_scored = f"adapt.text-matching.scored_sources {', '.join(settings.scored_sources)}"
    of_pairs = f"adapt.text-matching.pair_sources {', '.join(settings.pair_sources)}"

    def epoch_batches(epoch: int) -> list[np.ndarray]:
        size, seed, first = settings.training.batch_size * params.engine.processes, params.seed, len(scored)
        with_scores = shuffled_batches(left.lengths[:first], size, seed, epoch, of_scored)
        without = [rows + first for rows in shuffled_batches(left.lengths[first:], size, seed, epoch, of_pairs)]
        return mixed_batches((with_scores, without), (settings.scored_share, 1 - settings.scored_share), seed, epoch)

    return objective, epoch_batches, scored["id"].to_pylist() + pairs["id"].to_pylist()


if __name__ == "__main__":
    main()
