"""A plan's rows: the work, time and memory of each phase, and the bytes that a build leaves."""

from collections.abc import Sequence
from dataclasses import dataclass

from stages.planning.hardware import Hardware
from stages.planning.memory import FLOAT32, OPTIMIZER, Memory
from stages.planning.steps import Totals

# Of a stage that loads the libraries and a model: measured about 9 s of one core at work, bytecode compiled.
START_SECONDS = 10.0


@dataclass(frozen=True)
class Phase:
    """A stage that runs a model: the work of all processes, and its time."""

    stage: str
    work: Totals
    seconds: float
    processes: int
    memory: Memory

    @property
    def device_hours(self) -> float:
        """Of all processes together."""
        return self.seconds * self.processes / 3600


def phase(
    stage: str,
    shared: Totals,
    repeated: Totals,
    memory: Memory,
    hardware: Hardware,
    precision: str,
    processes: int,
) -> Phase:
    """The time of some work on some devices.

    Args:
        shared: work that the processes divide.
        repeated: work that each of them does: dev metrics.
    """
    speed = hardware.peak[precision] * hardware.utilisation
    seconds = START_SECONDS + (shared.computed / processes + repeated.computed) / speed
    return Phase(stage, shared + repeated, seconds, processes, memory)


# Whole models that a build writes: distilled, continued, extended, the release's base and four merged ones; and their
# graphs of one byte a weight.
FLOAT_MODELS, INT8_MODELS = 8, 4
# A teacher vector's coordinate in float16, and its key.
VECTOR_BYTES, KEY_BYTES = 2, 16


@dataclass(frozen=True)
class Disk:
    """Bytes that a build leaves, DVC's copies among them."""

    teacher_store: float
    models: float
    checkpoints: float

    @property
    def total(self) -> float:
        """The vectors are kept three times (working store, output, DVC's cache), models twice."""
        return 3 * self.teacher_store + 2 * self.models + self.checkpoints


def disk(teacher_texts: float, teacher_dimensions: int, parameters: int, trained: Sequence[int]) -> Disk:
    """Bytes of a build.

    Args:
        teacher_texts: texts with a vector of the teacher.
        parameters: of the student.
        trained: parameters that each training phase trains.
    """
    return Disk(
        teacher_texts * (VECTOR_BYTES * teacher_dimensions + KEY_BYTES),
        parameters * (FLOAT_MODELS * FLOAT32 + INT8_MODELS),
        sum(trained) * (FLOAT32 + OPTIMIZER),
    )
