"""The training stages in a plan: their steps as the stages draw them, their dev metrics, their memory.

`settings` are sections of a recipe, checked by who reads it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.modeling.flops import Shape
from stages.planning.batches import (
    Batches,
    batches_of_labelled,
    batches_of_pairs,
    batches_of_texts,
    batches_of_two_kinds,
)
from stages.planning.corpus import Corpus
from stages.planning.hardware import Hardware
from stages.planning.memory import Activations, trained_parameters, training_memory
from stages.planning.phases import Phase, phase
from stages.planning.steps import Learner, Totals, embedding, training
from stages.training.loop import EngineSettings

SIDES = ("query", "document")
SCORED = ("text_a", "text_b")
# As `Encoder.encode` has it, which dev metrics use.
DEV_BATCH_TOKENS = 4096


@dataclass(frozen=True)
class Student:
    """The model that is trained, on what and where.

    Args:
        name: as `TokenCounts` knows it.
        prompts: by side.
        narrowed: its pooling reads one position.
    """

    name: str
    shape: Shape
    kept: Activations
    narrowed: bool
    prompts: Mapping[str, str]
    frozen_embeddings: bool
    corpus: Corpus
    engine: EngineSettings
    device: Hardware
    seed: int

    def distill(self, settings: Any) -> Phase:
        """Stage 1, and the student trained on for a baseline."""
        schedule, processes = settings.training, self.engine.processes
        queries, documents = (
            [self._read(one, side, side, settings.max_tokens) for one in settings.sources] for side in SIDES
        )
        separable = settings.objective == "embedding_distillation"
        if separable:
            size, budget = (number and number * processes for number in (schedule.batch_size, schedule.batch_tokens))
            texts = np.concatenate([*queries, *documents])
            batches = batches_of_texts(texts, budget, size, self.seed, _named("distill", settings.sources))
        else:
            sizes, weights = [schedule.batch_size * processes] * len(queries), [float(len(part)) for part in queries]
            names = [_named("distill", [source]) for source in settings.sources]
            batches = batches_of_pairs(queries, documents, sizes, weights, names, self.seed)
        dev = self.corpus.dev_lengths(self.name, settings.sources, self.prompts, settings.max_tokens)
        evaluations = sum(_times(steps, schedule) for steps in (schedule.steps, settings.continued_steps))
        steps = schedule.steps + settings.continued_steps
        return self._phase("distill", batches, steps, dev, evaluations, separable=separable)

    def extend(self, settings: Any) -> Phase:
        """Stage 1 on long texts."""
        schedule = settings.training
        batches, dev = self._drawn("extend", settings.mixture, 0), self._dev_pairs(settings.mixture)
        return self._phase("extend", batches, schedule.steps, dev, _times(schedule.steps, schedule), separable=True)

    def retrieval(self, settings: Any) -> Phase:
        """The retrieval adapter; its average with an earlier one is measured once more."""
        schedule = settings.training
        batches = self._drawn("adapt.retrieval", settings.mixture, settings.num_negatives)
        dev = self._dev_pairs(settings.mixture)
        evaluations = _times(schedule.steps, schedule) + 1
        return self._phase("adapt@retrieval", batches, schedule.steps, dev, evaluations, rank=settings.lora.rank)

    def text_matching(self, settings: Any) -> Phase:
        """The text matching adapter."""
        scored = [self._documents(settings.scored_sources, column, settings) for column in SCORED]
        pairs = [self._documents(settings.pair_sources, column, settings) for column in SIDES]
        size = settings.training.batch_size * self.engine.processes
        of_scored, of_pairs = (
            _named("adapt.text-matching", sources) for sources in (settings.scored_sources, settings.pair_sources)
        )
        batches = batches_of_two_kinds(scored, pairs, size, settings.scored_share, self.seed, (of_scored, of_pairs))
        return self._adapter("text-matching", settings, batches, settings.scored_sources, SCORED)

    def clustering(self, settings: Any, dev_sources: Sequence[str]) -> Phase:
        """The clustering adapter, measured on labelled sources."""
        lengths = np.concatenate([self._documents(settings.sources, side, settings) for side in SIDES])
        size = settings.training.batch_size * self.engine.processes
        batches = batches_of_texts(lengths, None, size, self.seed, _named("adapt.clustering", settings.sources))
        return self._adapter("clustering", settings, batches, dev_sources, ("text",), separable=True)

    def classification(self, settings: Any) -> Phase:
        """The classification adapter, whose texts the frozen base embeds, too."""
        size = settings.training.batch_size * self.engine.processes
        lengths = self._documents(settings.sources, "text", settings)
        name = _named("adapt.classification", settings.sources)
        batches = batches_of_labelled(lengths, size, settings.num_negatives, self.seed, name)
        return self._adapter("classification", settings, batches, settings.sources, ("text",), needs_base=True)

    def trained(self, adapter_ranks: Sequence[int], phases: int) -> list[int]:
        """Parameters that are trained by `phases` of the backbone, and by adapters of some ranks."""
        whole = trained_parameters(self.shape, None, self.frozen_embeddings)
        return [whole] * phases + [trained_parameters(self.shape, rank, True) for rank in adapter_ranks]

    def _read(self, source: str, column: str, side: str, max_tokens: int) -> np.ndarray:
        return self.corpus.lengths(self.name, source, column, self.prompts[side], max_tokens)

    def _documents(self, sources: Sequence[str], column: str, settings: Any) -> np.ndarray:
        return np.concatenate([self._read(source, column, "document", settings.max_tokens) for source in sources])

    def _drawn(self, section: str, mixture: Sequence[Any], num_negatives: int) -> Batches:
        queries, documents = (
            [self._read(draw.source, side, side, draw.max_tokens) for draw in mixture] for side in SIDES
        )
        sizes, weights, names = (
            [draw.batch_size * self.engine.processes for draw in mixture],
            [draw.weight for draw in mixture],
            [_named(section, [draw.source]) for draw in mixture],
        )
        return batches_of_pairs(queries, documents, sizes, weights, names, self.seed, num_negatives)

    def _dev_pairs(self, mixture: Sequence[Any]) -> list[np.ndarray]:
        # The encoder cuts dev texts at the longest source's length, whichever they come from.
        longest = max(draw.max_tokens for draw in mixture)
        return self.corpus.dev_lengths(self.name, [draw.source for draw in mixture], self.prompts, longest)

    def _adapter(
        self,
        task: str,
        settings: Any,
        batches: Batches,
        dev_sources: Sequence[str],
        columns: Sequence[str],
        **how: bool,
    ) -> Phase:
        schedule, prompt = settings.training, self.prompts["document"]
        dev = self.corpus.dev_lengths(self.name, dev_sources, dict.fromkeys(columns, prompt), settings.max_tokens)
        evaluations = _times(schedule.steps, schedule)
        return self._phase(f"adapt@{task}", batches, schedule.steps, dev, evaluations, rank=settings.lora.rank, **how)

    def _phase(
        self,
        stage: str,
        batches: Batches,
        steps: int,
        dev: Sequence[np.ndarray],
        evaluations: int,
        *,
        rank: int | None = None,
        separable: bool = False,
        needs_base: bool = False,
    ) -> Phase:
        engine, checkpointing = self.engine, self.engine.gradient_checkpointing
        learner = Learner(
            self.shape, self.narrowed, engine.packing, rank, separable, needs_base, checkpointing=checkpointing
        )
        work = training(learner, batches, engine.micro_batch_tokens, engine.processes, steps)
        evaluation = sum(
            (
                embedding(self.shape, part, DEV_BATCH_TOKENS, narrowed=self.narrowed, packing=engine.packing, rank=rank)
                for part in dev
            ),
            Totals(),
        )
        memory = training_memory(
            self.shape,
            self.kept,
            rank=rank,
            frozen_embeddings=self.frozen_embeddings,
            micro_batch_tokens=engine.micro_batch_tokens,
            checkpointing=checkpointing,
            sharded_over=engine.processes if engine.shard else 1,
        )
        return phase(
            stage, work, evaluation * evaluations, memory, self.device, engine.precision, processes=engine.processes
        )


def _times(steps: int, schedule: Any) -> int:
    """Dev evaluations of a run: every so many steps, and at its end."""
    return -(-steps // schedule.evaluate_every)


def _named(section: str, sources: Sequence[str]) -> str:
    """Whose rows batches are drawn from, for the message where they are too few."""
    return f"{section} {', '.join(sources)} (in a plan, a sample of the rows)"
