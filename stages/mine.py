"""Mine: hard negatives of every training pair, from the same source and split, judged by the teacher.

Writes to data/mined: negatives.parquet (id, negatives, scores), inconsistent.parquet (pairs that retrieval is neither
trained nor measured on, with rank and reason), audit.json and audit.html.
"""

if __name__ == "__main__":  # The entry checks the recipe before torch is imported.
    from stages.entry import run_stage

    run_stage("mine")

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from stages.corpus.records import MODEL
from stages.corpus.tables import SPLITS, read_split, read_table, write_table
from stages.mining.audit import audit_source
from stages.mining.candidates import (
    Candidates,
    Student,
    bm25_ranking,
    merge,
    ranked_candidates,
    teacher_candidates,
)
from stages.mining.consistency import INCONSISTENT, audit_consistency, inconsistent_pairs, own_ranks
from stages.mining.given_negatives import audit_given
from stages.mining.hard_negatives import mine_negatives
from stages.recipe.paths import CURATED, EMBEDDED, INCONSISTENT_PAIRS, MINED
from stages.recipe.recipe import Recipe
from stages.reporting.mining_page import render_mining
from stages.teachers.teacher_vectors import TeacherVectors
from stages.tracking.runs import stage_run

# Fewest pairs of a source with a negative: adapt cannot form a batch of fewer.
MIN_PAIRS = 2
SCHEMA = pa.schema([("id", pa.string()), ("negatives", pa.list_(pa.string())), ("scores", pa.list_(pa.float32()))])


def main(recipe: Recipe) -> None:
    """Run the stage."""
    inputs = [CURATED, EMBEDDED, *([Path(recipe.mine.student)] if recipe.mine.student else [])]
    with stage_run(stage="mine", params=recipe.model_dump(include={"name", "mine"}), inputs=inputs) as run:
        for source, figures in mine(recipe).items():
            numbers = {name: value for name, value in figures.items() if isinstance(value, int | float)}
            run.log_metrics({f"{source}.{name}": value for name, value in numbers.items()})
        run.log_artifact(MINED / "audit.json")
        run.log_artifact(MINED / "audit.html")


def mine(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Mine each source's training pairs; returns the audit of each source.

    Raises:
        ValueError: a source has fewer than two pairs with a negative, on which retrieval cannot be trained.
    """
    teacher = TeacherVectors(EMBEDDED, recipe.embed)
    student = None if recipe.mine.student is None else Student(recipe.mine.student, recipe.embed.max_tokens)
    rows: list[dict[str, Any]] = []
    inconsistent: list[dict[str, Any]] = []
    audit: dict[str, dict[str, Any]] = {}
    poor: list[str] = []
    for source in tqdm(recipe.mine.sources, desc="mine", unit="source"):
        pairs = read_split(CURATED, "pairs", "train", [source]).to_pylist()
        texts = {side: [pair[side] for pair in pairs] for side in ("query", "document")}
        vectors = {side: teacher.of(side, texts[side], [source] * len(pairs)).astype(np.float32) for side in texts}
        positive_scores = np.einsum("qt,qt->q", vectors["query"], vectors["document"], dtype=np.float32)
        candidates = _candidates(recipe, student, texts, vectors)
        negatives = mine_negatives(candidates, positive_scores, recipe.mine)
        left_out, audit_of_ranks = _consistency(recipe, source, teacher)
        inconsistent += left_out
        without = {pair["id"] for pair in left_out}
        for pair, numbers, scores in zip(pairs, negatives.rows, negatives.scores, strict=True):
            if pair["id"] in without:
                continue
            rows.append({"id": pair["id"], "negatives": [pairs[row]["id"] for row in numbers], "scores": scores})
        usable = sum(
            len(numbers) > 0 or bool(pair["negatives"])
            for pair, numbers in zip(pairs, negatives.rows, strict=True)
            if pair["id"] not in without
        )
        poor += [f"{source} ({usable} of {len(pairs)})"] if usable < MIN_PAIRS else []
        audit[source] = audit_source(pairs, positive_scores, candidates, negatives, recipe.mine, recipe.seed)
        vectors_of = partial(_documents, teacher, source)
        audit[source] |= audit_given(pairs, vectors["query"], positive_scores, vectors_of, recipe.mine.num_examples)
        audit[source] |= audit_of_ranks
    write_table(MINED / "negatives.parquet", rows, SCHEMA)
    write_table(INCONSISTENT_PAIRS, inconsistent, INCONSISTENT)
    (MINED / "audit.json").write_text(json.dumps(audit, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (MINED / "audit.html").write_text(render_mining(recipe.mine, audit), encoding="utf-8")
    if poor:
        raise ValueError(
            f"mine: got too few pairs with a hard negative, {', '.join(poor)}, expected at least {MIN_PAIRS} of each "
            "source, without which retrieval learns nothing; lower relative_margin or absolute_margin, widen "
            "rank_window, or give the sources documents that differ more (data/mined/audit.html)"
        )
    return audit


def _consistency(recipe: Recipe, source: str, teacher: TeacherVectors) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Find the pairs of a source that the recipe's last rank leaves out, and their audit; none where it names none.

    Of train all pairs are judged, of dev and test those that a model wrote: people's own questions are measured as they
    are, however hard.
    """
    last_rank = recipe.mine.consistency.get(source)
    if last_rank is None:
        return [], {"last_rank": None, "inconsistent": 0, "left_out": [], "kept": []}
    splits = [read_table(CURATED / "pairs" / f"{split}.parquet", [source]).to_pylist() for split in SPLITS]
    pairs = [pair for of_split in splits for pair in of_split]
    texts = {side: [pair[side] for pair in pairs] for side in ("query", "document")}
    queries, documents = (
        teacher.of(side, texts[side], [source] * len(pairs)).astype(np.float32) for side in ("query", "document")
    )
    ranks = own_ranks(pairs, queries, documents)
    num_train = len(splits[0])
    judged = [row for row, pair in enumerate(pairs) if row < num_train or pair["origin"] == MODEL]
    pairs, ranks = [pairs[row] for row in judged], ranks[judged]
    left_out = inconsistent_pairs(pairs, ranks, last_rank)
    return left_out, audit_consistency(pairs, ranks, last_rank, left_out, recipe.mine.num_examples)


def _documents(teacher: TeacherVectors, source: str, texts: list[str]) -> np.ndarray:
    return teacher.of("document", texts, [source] * len(texts))


def _candidates(
    recipe: Recipe, student: Student | None, texts: dict[str, list[str]], vectors: dict[str, np.ndarray]
) -> Candidates:
    """Take candidates from the lists that the recipe names, in turns."""
    window, lists = recipe.mine.rank_window, []
    for name in recipe.mine.candidates:
        if name == "teacher":
            lists.append(teacher_candidates(vectors["query"], vectors["document"], window))
            continue
        if name == "student":
            assert student is not None, "the recipe's check asks for its folder"
            ranked = student.ranking(texts["query"], texts["document"], window[1] + 1)
        else:
            ranked = bm25_ranking(texts["query"], texts["document"], window[1] + 1, recipe.evaluate.bm25)
        lists.append(ranked_candidates(vectors["query"], vectors["document"], ranked, window))
    return merge(lists)
