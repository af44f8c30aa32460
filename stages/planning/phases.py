"""The texts that each stage gives to a model: the teacher's inputs, and the steps and evaluations of each training.

Shapes: N rows at hand, which stand for all rows of some sources, M texts that a row brings into a batch.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stages.objectives.classification import ClassificationObjective
from stages.objectives.distillation import DistillationObjective
from stages.objectives.objective import Objective
from stages.objectives.pairs import ContrastiveObjective, ScoreDistillationObjective
from stages.objectives.retrieval import RetrievalObjective
from stages.objectives.text_matching import TextMatchingObjective
from stages.planning.sources import TextLengths
from stages.recipe.adapt import Adapt, Clustering, Retrieval, TaskSettings, TextMatching
from stages.recipe.distill import Distill
from stages.recipe.embed import Embed
from stages.recipe.extend import Extend
from stages.recipe.fields import Task
from stages.recipe.training import Draw, Schedule
from stages.teachers.teacher import ReadingRule, reading_rule
from stages.teachers.teacher_inputs import TeacherInput

# The side that the student reads each column as.
PAIR = {"query": "query", "document": "document"}
DOCUMENTS = {"query": "document", "document": "document"}
SCORED = {"text_a": "document", "text_b": "document"}
LABELLED = {"text": "document"}
DISTILL_OBJECTIVES: dict[str, type[Objective]] = {
    "embedding_distillation": DistillationObjective,
    "score_distillation": ScoreDistillationObjective,
    "info_nce": ContrastiveObjective,
}
ADAPTER_OBJECTIVES: dict[Task, type[Objective]] = {
    "retrieval": RetrievalObjective,
    "text-matching": TextMatchingObjective,
    "clustering": DistillationObjective,
    "classification": ClassificationObjective,
}
# Kinds of steps: weight, tokens [N, M] of the rows that batches are drawn from, rows of a batch on one process.
Kinds = Sequence[tuple[float, np.ndarray, float]]


@dataclass(frozen=True)
class Read:
    """Texts that a stage embeds.

    Args:
        times: how often each text is embedded.
        lengths: tokens, [N] or [N, M], of the texts, or of the windows of `num_texts` texts.
        batch_tokens: tokens of a batch on one process.
    """

    times: float
    lengths: np.ndarray
    batch_tokens: float = 0.0
    num_texts: int | None = None


@dataclass(frozen=True)
class Phase:
    """The texts that a stage embeds, and what it does with the embeddings.

    Args:
        reads: texts that the stage's processes share; a batch holds texts of one of them.
        evaluations: texts that each process embeds for the dev split.
        objective: what the phase trains for; None if it only embeds.
        rank: of the adapter that is trained; None trains the backbone.
    """

    stage: str
    reads: Sequence[Read]
    evaluations: Read
    objective: type[Objective] | None
    rank: int | None = None

    @property
    def batch_tokens(self) -> float:
        """Tokens of the largest kind of batch on one process."""
        return max(read.batch_tokens for read in self.reads)


def embed_phase(inputs: Sequence[TeacherInput], embed: Embed, lengths: TextLengths) -> Phase:
    """Describe the embed stage: the teacher embeds each text once for each rule by which it is read."""
    known: defaultdict[ReadingRule, set[str]] = defaultdict(set)
    reads = []
    for _, column, side, sources in inputs:
        for name in sources:
            source, rule = lengths.sources[name], reading_rule(embed, side, name)
            seen = known[rule]
            times = sum(source.rows.values()) / max(1, len(source.texts[column]))
            around = lengths.around(side) if rule.window_tokens < rule.max_tokens and source.tokens is None else 0
            with_negatives = column == side == "document" and "negatives" in source.texts
            for read in (column, "negatives") if with_negatives else (column,):
                new = {text: row for row, text in enumerate(source.texts[read]) if text not in seen}
                seen.update(new)
                tokens = lengths.whole(name, read, side)[list(new.values())]
                reads.append(Read(times, in_windows(tokens, rule, around), embed.batch_tokens, len(tokens)))
    return Phase("embed", reads, Read(0, np.empty(0)), None)


def in_windows(lengths: np.ndarray, rule: ReadingRule, around: int) -> np.ndarray:
    """Return the tokens of the windows that texts are read in: full windows, and what remains of each text.

    Args:
        lengths: tokens of each whole text.
        around: tokens of `lengths` that every window has.
    """
    if rule.window_tokens >= rule.max_tokens:
        return np.minimum(lengths, rule.max_tokens)
    full, rest = np.divmod(np.minimum(lengths - around, rule.max_tokens), rule.window_tokens - around)
    return np.concatenate([np.full(int(full.sum()), rule.window_tokens), rest[rest > 0] + around])


class TrainingPhases:
    """The phases that train the student, whose batches `processes` share."""

    def __init__(self, lengths: TextLengths, processes: int) -> None:
        self.lengths, self.processes = lengths, processes

    def distill(self, distill: Distill) -> Phase:
        """Describe stage 1, and the student that is trained on for a baseline."""
        schedule, objective = distill.training, DISTILL_OBJECTIVES[distill.objective]
        if objective.separable:  # single texts
            rows = np.concatenate(
                [row.reshape(-1, 1) for row in self.lengths.stage1(distill.sources, distill.max_tokens)]
            )
        else:
            rows = self.lengths.train(distill.sources, PAIR, distill.max_tokens)
        size = schedule.batch_size or (schedule.batch_tokens or 0) / float(rows.mean())
        steps = schedule.steps, distill.continued_steps
        times = sum(_evaluations(schedule, number) for number in steps)
        dev = Read(times, self.lengths.dev(distill.sources, PAIR, distill.max_tokens))
        return Phase("distill", self._batches(sum(steps), [(1.0, rows, size)]), dev, objective)

    def extend(self, extend: Extend) -> Phase:
        """Describe stage 1 on long texts."""
        steps = extend.training.steps
        kinds, dev = self._mixture(extend.mixture)
        evaluations = Read(_evaluations(extend.training, steps), dev)
        return Phase("extend", self._batches(steps, kinds), evaluations, DistillationObjective)

    def adapters(self, adapt: Adapt) -> list[Phase]:
        """Describe the training of each task's adapter."""
        found = []
        for task, section in adapt.trained.items():
            kinds, dev = self._adapter(section, adapt.classification.sources)
            steps = section.training.steps
            times = _evaluations(section.training, steps) + (task == "retrieval")  # also of the mean of two states
            reads = self._batches(steps, kinds)
            found.append(Phase(f"adapt@{task}", reads, Read(times, dev), ADAPTER_OBJECTIVES[task], section.lora.rank))
        return found

    def _adapter(self, section: TaskSettings, labelled: Sequence[str]) -> tuple[Kinds, np.ndarray]:
        """Return the kinds of steps of an adapter, and the tokens of the texts of an evaluation.

        Args:
            labelled: sources of labelled texts, on which clustering is evaluated too.
        """
        match section:
            case Retrieval():
                return self._mixture(section.mixture, section.num_negatives)
            case TextMatching():
                return self._text_matching(section)
            case Clustering():
                rows = self.lengths.single_documents(section.sources, section.max_tokens)
            case _:
                rows = self.lengths.train(section.sources, LABELLED, section.max_tokens)
                rows = _with_random_texts(rows, 1 + section.num_negatives)
        kinds = [(1.0, rows, section.training.batch_size)]
        return kinds, self.lengths.dev(labelled, LABELLED, section.max_tokens)

    def _text_matching(self, section: TextMatching) -> tuple[Kinds, np.ndarray]:
        """Return the kinds of steps of text matching, and the tokens of the texts of an evaluation."""
        share, most = section.scored_share, section.max_tokens
        parts = [(share, section.scored_sources, SCORED), (1 - share, section.pair_sources, DOCUMENTS)]
        kinds = [
            (weight, self.lengths.train(names, sides, most), section.training.batch_size)
            for weight, names, sides in parts
            if names
        ]
        if len(kinds) == 1:  # all steps are of one kind, whatever its share
            kinds = [(1.0, *kinds[0][1:])]
        return kinds, self.lengths.dev(section.scored_sources, SCORED, most)

    def _batches(self, steps: int, kinds: Kinds) -> list[Read]:
        """Return the reads of a phase's steps, one of each kind."""
        total = sum(weight for weight, *_ in kinds)
        return [
            Read(
                steps * weight / total * size * self.processes / len(rows), rows, size * float(rows.sum(axis=1).mean())
            )
            for weight, rows, size in kinds
        ]

    def _mixture(self, mixture: Sequence[Draw], num_negatives: int = 0) -> tuple[Kinds, np.ndarray]:
        """Return the kinds of steps of a mixture, and the tokens of the texts of an evaluation."""
        read = [self.lengths.stage1([draw.source], draw.max_tokens)[0] for draw in mixture]
        kinds = [
            (draw.weight, _with_random_texts(rows, num_negatives), draw.batch_size)
            for draw, rows in zip(mixture, read, strict=True)
        ]
        # The encoder cuts dev texts at the longest source's length, whichever source they come from.
        longest = max(draw.max_tokens for draw in mixture)
        return kinds, self.lengths.dev([draw.source for draw in mixture], PAIR, longest)


def _with_random_texts(rows: np.ndarray, number: int) -> np.ndarray:
    """Add random texts of the last column to each row: [N, M] to [N, M + number]."""
    return np.hstack([rows, np.random.default_rng(0).choice(rows[:, -1], (len(rows), number))])


def _evaluations(schedule: Schedule, steps: int) -> int:
    """Return how often a phase is evaluated: every so many steps, and at its end."""
    return -(-steps // schedule.evaluate_every)
