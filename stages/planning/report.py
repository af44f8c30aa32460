"""A plan as a table to read, and beside what a build measured."""

from collections.abc import Mapping, Sequence

from stages.planning.hardware import Hardware
from stages.planning.measured import Measured
from stages.planning.phases import START_SECONDS, Disk, Phase
from stages.planning.texts import SourceTexts

GIB = 2**30
HEADER = ("stage", "texts", "tokens", "TFLOP", "computed", "time", "device-h", "memory/device")


def phase_table(phases: Sequence[Phase], hardware: Hardware, precision: str) -> str:
    """One line a phase, then their sum; a phase that does not fit the device is marked."""
    lines: list[tuple[str, ...]] = [HEADER]
    for one in phases:
        fits = "" if one.memory.total <= hardware.memory else " does not fit"
        memory = f"{_bytes(one.memory.total)}{fits}"
        lines.append((*_figures(one.stage, one), memory))
    seconds, hours = sum(one.seconds for one in phases), sum(one.device_hours for one in phases)
    lines.append(("sum", "", "", "", "", _time(seconds), f"{hours:.3g}", ""))
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
    rows = [
        "  ".join(cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in enumerate(cells))
        for cells in (list(zip(line, widths, strict=True)) for line in lines)
    ]
    peak = hardware.peak[precision]
    return "\n".join(
        [
            f"on {hardware.name}: {peak / 1e12:.3g} TFLOP/s in {precision} ({hardware.source}),",
            f"of which {hardware.utilisation:.0%} are counted on for all that is computed; {START_SECONDS:.0f} s a "
            "stage to start",
            "",
            *rows,
        ]
    )


def _figures(stage: str, one: Phase) -> tuple[str, ...]:
    work = one.work
    return (
        stage,
        f"{work.texts:,.0f}",
        f"{work.tokens:,.0f}",
        f"{work.flops / 1e12:,.4g}",
        f"{work.computed / 1e12:,.4g}",
        _time(one.seconds),
        f"{one.device_hours:.3g}",
    )


def sources_table(sources: Mapping[str, SourceTexts]) -> str:
    """How many rows each source has by split, and how that is known."""
    lines = [f"{'source':24}{'train':>12}{'dev':>10}{'test':>10}  counted from"]
    for name, source in sources.items():
        rows = [source.rows(split) for split in ("train", "dev", "test")]
        tokens = "" if source.tokens is None else f", {source.tokens} tokens a text"
        lines.append(f"{name:24}{rows[0]:>12,}{rows[1]:>10,}{rows[2]:>10,}  {source.counted}{tokens}")
    return "\n".join(lines)


def memory_table(phases: Sequence[Phase]) -> str:
    """What the memory of each phase is made of."""
    lines = ["memory on a device, without the libraries' own (about 1 GiB): weights, gradients, optimizer, activations"]
    for one in phases:
        memory = one.memory
        parts = (memory.weights, memory.gradients, memory.optimizer, memory.activations)
        lines.append(f"  {one.stage:22}" + "".join(f"{_bytes(part):>12}" for part in parts))
    return "\n".join(lines)


def disk_lines(disk: Disk) -> str:
    """What a build leaves on disk."""
    return (
        f"disk, about {_bytes(disk.total)}: teacher vectors {_bytes(disk.teacher_store)} (kept 3 times), "
        f"models {_bytes(disk.models)} (kept twice), checkpoints {_bytes(disk.checkpoints)}"
    )


def comparison(phases: Sequence[Phase], measured: Mapping[str, Measured], tolerance: float) -> tuple[str, bool]:
    """Planned against measured seconds, and whether every stage that did all of its work is within the tolerance."""
    lines, good = [f"{'stage':22}{'planned':>10}{'measured':>10}{'ratio':>8}"], True
    for one in phases:
        if one.stage not in measured:
            lines.append(f"{one.stage:22}{one.seconds:>9.0f}s{'none':>10}")
            continue
        found = measured[one.stage]
        ratio = one.seconds / found.seconds
        line = f"{one.stage:22}{one.seconds:>9.0f}s{found.seconds:>9.0f}s{ratio:>8.2f}"
        if reused := found.metrics.get("reused", 0):
            line += f"  not judged: {reused:.0f} texts had their vectors already"
        elif abs(ratio - 1) > tolerance:
            good = False
            line += f"  over {tolerance:.0%} off"
        lines.append(line)
    return "\n".join(lines), good


def _bytes(size: float) -> str:
    if size < GIB:
        return f"{size / 2**20:.0f} MiB"
    return f"{size / GIB:.1f} GiB" if size < 100 * GIB else f"{size / GIB:,.0f} GiB"


def _time(seconds: float) -> str:
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 36_000 else f"{seconds / 3600:,.1f} h"
