"""A contrastive step with many in-batch negatives beside Sentence Transformers' cached loss: same student and rows.

`python -m tests.benchmarks.contrastive ROWS` prints what one step of ours adds to the memory of its process, bytes.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from sentence_transformers.losses import CachedMultipleNegativesRankingLoss

from stages.modeling.encoder import Encoder
from stages.objectives.pairs import ContrastiveObjective
from stages.objectives.training_texts import TrainingTexts
from stages.training.distributed import TrainingProcesses
from stages.training.gradcache import backward, prepare
from tests.benchmarks.engine import LEARNING_RATE, recipe, timed_steps
from tests.benchmarks.measure import Figure, in_turns, middle, most_resident, seconds, use_all_cores
from tests.benchmarks.students import MAX_TOKENS, PROMPTS, as_peer, eurobert, gradients_apart
from tests.benchmarks.texts import pairs as real_pairs

PEER = "CachedMultipleNegativesRankingLoss"
PEER_MINI_BATCH_SIZES = (16, 32, 64)
TEMPERATURE = 0.02
# Enough rows to tell which mini-batch is the peer's best, few enough for seconds.
TRIAL_ROWS = 128
MEMORY_ROWS = (256, 1024)


def contrastive_speed(
    build: Callable[[], Encoder], pairs: Sequence[tuple[str, str]], rounds: int, trial_rows: int = TRIAL_ROWS
) -> dict[str, Figure]:
    """Figures of a step whose rows are all the pairs: each has the other documents as its negatives."""
    # Longest first, as the peer's length-grouping sampler has it: its mini-batches are cut in this order.
    pairs = sorted(pairs, key=lambda pair: len(pair[1]), reverse=True)
    objective = _objective(build(), pairs)
    with tempfile.TemporaryDirectory() as folder:
        peer = as_peer(objective.encoder, Path(folder))
    rows = np.arange(len(pairs))
    trial = rows[:: len(rows) // trial_rows]
    optimizer = torch.optim.AdamW((one for one in peer.parameters() if one.requires_grad), LEARNING_RATE, fused=True)

    def peer_inputs(chosen: np.ndarray) -> list[Any]:
        texts = [[PROMPTS[side] + pairs[row][at] for row in chosen] for at, side in enumerate(PROMPTS)]
        return [peer.preprocess(of_side) for of_side in texts]

    def peer_loss(mini_batch_size: int, inputs: list[Any]) -> float:
        loss = CachedMultipleNegativesRankingLoss(peer, scale=1 / TEMPERATURE, mini_batch_size=mini_batch_size)
        value = loss(inputs, None)
        value.backward()
        return float(value)

    def peer_step(mini_batch_size: int, inputs: list[Any]) -> None:
        peer_loss(mini_batch_size, inputs)
        optimizer.step()
        optimizer.zero_grad()

    trial_inputs, inputs = peer_inputs(trial), peer_inputs(rows)
    term, expected = _gradients(objective, trial), peer_loss(32, trial_inputs)
    gradients = gradients_apart(objective.encoder, peer)
    objective.zero_grad()
    optimizer.zero_grad()
    mini_batch_size = min(PEER_MINI_BATCH_SIZES, key=lambda size: seconds(lambda: peer_step(size, trial_inputs)))
    found = in_turns(
        {
            "ours": lambda: timed_steps(objective, [trial, rows], warm_steps=1).seconds,
            "peer": lambda: seconds(lambda: peer_step(mini_batch_size, inputs)),
        },
        rounds,
    )
    ratio = middle(found["peer"]) / middle(found["ours"])
    tokens = len(objective.texts(rows).ids)
    return {
        "contrastive_step_tokens_per_second": Figure(tokens / middle(found["ours"]), "tokens/s"),
        "contrastive_step_ratio": Figure(ratio, f"mini {mini_batch_size}", PEER, ratio, ">= 1.3"),
        "contrastive_step_loss_apart": Figure(abs(term - expected) / expected, "", target="< 1e-5"),
        "contrastive_step_gradients_apart": Figure(gradients, "", target="< 1e-4"),
    }


def _objective(encoder: Encoder, pairs: Sequence[tuple[str, str]]) -> ContrastiveObjective:
    """InfoNCE at the full dimension alone, as the peer's loss has it."""
    queries, documents = (
        TrainingTexts.of(encoder, [pair[at] for pair in pairs], side, MAX_TOKENS) for at, side in enumerate(PROMPTS)
    )
    return ContrastiveObjective(encoder, [encoder.dimensions], (queries, documents), TEMPERATURE)


def _gradients(objective: ContrastiveObjective, rows: np.ndarray) -> float:
    """Leave the engine's gradients of some rows in the encoder; returns the loss."""
    processes = TrainingProcesses(1)
    micro_batch_tokens = recipe().engine.micro_batch_tokens
    batch = prepare(objective, rows, micro_batch_tokens, processes, objective.encoder.collate)
    (term,) = backward(objective, batch, processes).values()
    return float(term)


def contrastive_memory() -> dict[str, Figure]:
    """What a step adds to a process's memory, with a quarter of the rows and with all of them."""
    found = []
    for rows in MEMORY_ROWS:
        command = [sys.executable, "-m", "tests.benchmarks.contrastive", str(rows)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found.append(float(printed.split()[-1]))
    return {
        "contrastive_step_bytes": Figure(found[1], "bytes"),
        "contrastive_step_bytes_growth": Figure(found[1] / found[0], f"x of {MEMORY_ROWS[0]} rows", target="< 1.5"),
    }


def _main() -> None:
    use_all_cores()
    pairs = real_pairs(int(sys.argv[1]))
    objective = _objective(eurobert(), pairs)
    this = psutil.Process()
    before = this.memory_info().rss
    most = most_resident(lambda: _gradients(objective, np.arange(len(pairs))), lambda: [this], every=0.005)
    print(most - before)


if __name__ == "__main__":
    _main()
