"""Sections of a recipe for tests: a test names the values that matter to it, the others suit a tiny model on a CPU."""

from typing import Any

from stages.recipe.adapt import (
    Classification,
    ClassificationWeights,
    Retrieval,
    RetrievalWeights,
    TextMatching,
    TextMatchingWeights,
)
from stages.recipe.engine import Engine
from stages.recipe.training import Schedule


def engine(**changes: Any) -> Engine:
    """An engine of one thread and one process, with micro-batches of 64 tokens."""
    values = {
        "threads": 1,
        "processes": 1,
        "precision": "float32",
        "micro_batch_tokens": 64,
        "packing": False,
        "gradient_checkpointing": False,
        "compile": False,
        "shard": False,
    }
    return Engine.model_validate(values | changes)


def schedule(steps: int, **changes: Any) -> Schedule:
    """A schedule without weight decay, with a checkpoint and an evaluation at the last step."""
    values = {
        "steps": steps,
        "learning_rate": 0.01,
        "warmup_ratio": 0.1,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "evaluate_every": steps,
        "checkpoint_every": steps,
    }
    return Schedule.model_validate(values | changes)


def retrieval(**changes: Any) -> Retrieval:
    """What the retrieval objective reads: weights 1, 2 and 3 of its terms."""
    weights = RetrievalWeights(info_nce=1.0, distillation=2.0, spread_out=3.0)
    values: dict[str, Any] = {"temperature": 0.05, "false_negative_margin": None, "weights": weights}
    return Retrieval.model_construct(**values | changes)


def text_matching(**changes: Any) -> TextMatching:
    """What the text-matching objective reads: weights 1.5, 2.5 and 3.5 of its terms."""
    weights = TextMatchingWeights(cosent=1.5, info_nce=2.5, distillation=3.5)
    values: dict[str, Any] = {"temperature": 0.05, "cosent_temperature": 0.1, "weights": weights}
    return TextMatching.model_construct(**values | changes)


def classification(**changes: Any) -> Classification:
    """What the classification objective reads: two negatives, weights 1 and 2 of its terms."""
    weights = ClassificationWeights(info_nce=1.0, relational=2.0)
    values: dict[str, Any] = {"num_negatives": 2, "temperature": 0.05, "weights": weights}
    return Classification.model_construct(**values | changes)
