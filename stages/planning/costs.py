"""What a stage costs on a device: FLOPs, time and memory; and the disk that a build takes."""

from collections.abc import Sequence
from dataclasses import dataclass

from stages.planning.devices import Device, timed_speed
from stages.planning.models import PlannedModel
from stages.planning.phases import Phase
from stages.recipe.engine import Engine

# Of a stage that loads the libraries and a model: measured about 9 s of one core at work, bytecode compiled.
START_SECONDS = 10.0
# Bytes of a value, of AdamW's two moments of it, and of a teacher vector's coordinate and key.
VALUE, MOMENTS, COORDINATE, KEY = 4, 8, 2, 16
# Whole models that a build writes: distilled, continued, extended, the release's base and four merged ones; and their
# graphs of one byte a weight.
FLOAT_MODELS, INT8_MODELS = 8, 4


@dataclass(frozen=True)
class StageCost:
    """What a stage takes.

    Args:
        texts, tokens, flops: of the model's own work, without what is computed twice.
        computed: FLOPs of all processes.
        memory: bytes on a device by use, without the libraries' own (about 1 GiB).
    """

    stage: str
    texts: float
    tokens: float
    flops: float
    computed: float
    seconds: float
    device_hours: float  # of all processes together
    memory: dict[str, float]


def stage_cost(
    phase: Phase, model: PlannedModel, frozen_embeddings: bool, engine: Engine, device: Device, processes: int
) -> StageCost:
    """Return the cost of a phase whose texts some processes share."""
    objective = phase.objective
    forward, whole = model.flops(phase.rank), model.flops(phase.rank, backward=objective is not None)
    flops = computed = sum(read.times * whole.of(read.lengths.ravel()) for read in phase.reads)
    for read in phase.reads:
        parted, lengths = read.batch_tokens > engine.micro_batch_tokens, read.lengths.ravel()
        if objective is not None:
            # A batch in several parts is embedded once more, unless its loss is a mean; layers may be computed again.
            again = (parted and not objective.separable) + engine.gradient_checkpointing
            base = model.flops().of(lengths) if objective.needs_base else 0.0
            computed += read.times * (again * forward.of(lengths) + base)
    dev = phase.evaluations
    evaluation = dev.times * forward.of(dev.lengths)
    speed = device.peak * device.share if device.share else timed_speed(model, phase, engine)
    seconds = START_SECONDS + (computed / processes + evaluation) / speed
    return StageCost(
        phase.stage,
        sum(read.times * (read.num_texts or read.lengths.size) for read in (*phase.reads, dev)),
        sum(read.times * float(read.lengths.sum()) for read in (*phase.reads, dev)),
        flops + evaluation,
        computed + processes * evaluation,
        seconds,
        seconds * processes / 3600,
        device_memory(phase, model, engine, frozen_embeddings),
    )


def device_memory(phase: Phase, model: PlannedModel, engine: Engine, frozen_embeddings: bool) -> dict[str, float]:
    """Return the bytes of a process that embeds, or that trains a backbone or an adapter on it."""
    per_token, per_pass = model.activations(engine.precision)
    of_layer = per_token / model.num_layers
    if phase.objective is None:  # the activations of one layer at a time
        activations = of_layer * phase.batch_tokens + per_pass
        return {"weights": model.parameters * VALUE, "gradients": 0, "optimizer": 0, "activations": activations}
    trained = model.trained_parameters(phase.rank, frozen_embeddings)
    weights = model.parameters + (0 if phase.rank is None else trained)
    if engine.gradient_checkpointing:  # the input of each layer, and the layer that is computed again
        per_token = model.num_layers * model.config.hidden_size * VALUE + of_layer
    share = engine.processes if engine.shard else 1
    return {
        "weights": weights * VALUE / share,
        "gradients": trained * VALUE / share,
        "optimizer": trained * MOMENTS / share,
        "activations": per_token * engine.micro_batch_tokens + per_pass,
    }


def disk_bytes(vectors: float, dimensions: int, parameters: int, trained: Sequence[int]) -> dict[str, float]:
    """Return the bytes that a build leaves: vectors are kept three times (store, output, DVC's cache), models twice."""
    teacher, checkpoints = vectors * (COORDINATE * dimensions + KEY), float(sum(trained)) * (VALUE + MOMENTS)
    models = float(parameters * (FLOAT_MODELS * VALUE + INT8_MODELS))
    total = 3 * teacher + 2 * models + checkpoints
    return {"total": total, "teacher_vectors": teacher, "models": models, "checkpoints": checkpoints}
