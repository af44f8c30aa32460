"""Which failures are tried again, by the last lines that DVC printed."""

from pathlib import Path

import pytest

from flows.failure_causes import Fault, classify

ROOT = Path(__file__).resolve().parents[2]
UNRECORDED = "stages.tracking.runs.TrackingError: distill: MLflow could not record it: MlflowException:"
GLOO = "[rank1]: RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:561] Connection closed by peer"
NCCL = "[rank1]: torch.distributed.DistBackendError: NCCL error, remote process exited or there was a network error"
LAUNCHER = ("torch.distributed.elastic.multiprocessing.errors.ChildFailedError: ", "stages/distill.py FAILED")
FAILED = "ERROR: failed to reproduce 'distill': failed to run: python -m stages.distill, exited with {}"


@pytest.mark.parametrize(
    ("fault", "lines"),
    [
        (Fault.LOST, [FAILED.format(-9)]),
        (Fault.LOST, [FAILED.format(137)]),
        (Fault.FINAL, [FAILED.format(1)]),
        (Fault.FINAL, [FAILED.format(255)]),
        (Fault.FINAL, []),
        (Fault.FINAL, ["ValueError: loss is NaN at step 3", FAILED.format(1)]),
        (Fault.FINAL, ["error: params.yaml: seed: missing", FAILED.format(1)]),
        (Fault.FINAL, ["OSError: [Errno 28] No space left on device", FAILED.format(1)]),
        (Fault.MEMORY, ["torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", FAILED.format(1)]),
        (Fault.NETWORK, ["requests.exceptions.ConnectionError: refused", FAILED.format(1)]),
        (Fault.NETWORK, ["openai.APITimeoutError: Request timed out.", FAILED.format(1)]),
        # What is raised last is what ended the stage, not what it was handling.
        (Fault.FINAL, ["ConnectionError: refused", "ValueError: no such data set", FAILED.format(1)]),
        (
            Fault.NETWORK,
            [
                f"{UNRECORDED} API request failed with exception HTTPConnectionPool: Max retries exceeded",
                FAILED.format(1),
            ],
        ),
        (
            Fault.FINAL,
            [
                f"{UNRECORDED} a metric is no number",
                FAILED.format(1),
            ],
        ),
        # Of several processes, torch puts the rank before each line, and its launcher's own error comes last.
        (Fault.MEMORY, ["[rank0]: torch.OutOfMemoryError: CUDA out of memory.", *LAUNCHER, FAILED.format(1)]),
        (Fault.NETWORK, ["[rank1]: requests.exceptions.ConnectionError: refused", *LAUNCHER, FAILED.format(1)]),
        (Fault.LOST, [*LAUNCHER, "  exitcode  : -9 (pid: 17)", FAILED.format(1)]),
        (Fault.FINAL, ["[rank0]: ValueError: NaN", *LAUNCHER, "  exitcode  : 1 (pid: 17)", FAILED.format(1)]),
        # One that lost another one says nothing of why.
        (Fault.FINAL, ["[rank0]: ValueError: NaN", GLOO, *LAUNCHER, "  exitcode  : 1 (pid: 17)", FAILED.format(1)]),
        (Fault.FINAL, ["[rank0]: ValueError: NaN", NCCL, *LAUNCHER, "  exitcode  : -6 (pid: 17)", FAILED.format(1)]),
        (Fault.NETWORK, ["[rank0]: ConnectionError: refused", GLOO, *LAUNCHER, FAILED.format(1)]),
        (Fault.MEMORY, [NCCL, "[rank0]: torch.OutOfMemoryError: CUDA out of memory.", *LAUNCHER, FAILED.format(1)]),
        (Fault.LOST, [GLOO, *LAUNCHER, "  exitcode  : -9 (pid: 17)", FAILED.format(1)]),
        (Fault.LOST, [NCCL, *LAUNCHER, "  exitcode  : -6 (pid: 17)", FAILED.format(1)]),
        (Fault.NETWORK, [GLOO, *LAUNCHER, "  exitcode  : 1 (pid: 17)", FAILED.format(1)]),
        (Fault.BUSY, ["RuntimeError: another process writes to .stillhouse/vectors; wait", FAILED.format(1)]),
        (Fault.BUSY, ["RuntimeError: another process is training distill in x; wait", FAILED.format(1)]),
    ],
)
def test_a_failure_is_told_by_its_last_lines(fault: Fault, lines: list[str]) -> None:
    assert classify(lines) is fault


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("stages/embed.py", "another process writes to "),
        ("stages/training/checkpoints.py", "another process is training "),
        ("stages/tracking/runs.py", "MLflow could not record it: "),
    ],
)
def test_the_stages_say_what_is_looked_for(file: str, words: str) -> None:
    assert words in (ROOT / file).read_text(encoding="utf-8")
