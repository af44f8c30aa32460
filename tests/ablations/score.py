"""Score: the student, a task's adapter or the joint adapter on a task's test rows, row by row for paired comparisons.

Writes data/scored/<subject>-<task>.parquet, rows with the columns that `comparison` reads, and their figures as JSON.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from stages.corpus.tables import read_split
from stages.evaluation.compression import stored
from stages.evaluation.evidence import units_of_tests
from stages.metrics.classification import accuracy
from stages.metrics.clustering import clusters
from stages.metrics.retrieval import ndcg_at_10, rank
from stages.modeling.adapters import load_adapter
from stages.modeling.encoder import Encoder, place, saved_encoder
from stages.recipe.fields import TASKS
from stages.recipe.paths import ADAPTED, CURATED, EXTENDED
from stages.recipe.recipe import Recipe, load
from tests.ablations.comparison import UNITS, by_source, figure, figures_of

OUTPUT = Path("data/scored")
SUBJECTS = ("student", "adapter", "joint")
# k-means depends on its start: as in evaluate, the mean over so many starts counts.
CLUSTERING_SEEDS = 5

Columns = dict[str, Any]  # a value for each row


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(prog="python -m tests.ablations.score", description=__doc__)
    parser.add_argument("subject", choices=SUBJECTS)
    parser.add_argument("task", choices=TASKS)
    arguments = parser.parse_args()
    score(load(), arguments.subject, arguments.task)


def score(recipe: Recipe, subject: str, task: str) -> None:
    """Score every source of the task; write rows and figures."""
    torch.set_num_threads(recipe.engine.threads)
    encoder = _encoder(recipe, subject, task)
    of_task = {
        "retrieval": (_retrieval, recipe.evaluate.sources.retrieval),
        "text-matching": (_text_matching, recipe.evaluate.sources.text_matching),
        "clustering": (_clustering, recipe.evaluate.sources.clustering),
        "classification": (_classification, recipe.evaluate.sources.classification),
    }
    rows, sources = of_task[task]
    parts = []
    for source, units in units_of_tests(CURATED, {task: sources})[task].items():
        drawn_by = {"source": [source] * len(units), UNITS: units.reshape(len(units), -1).tolist()}
        parts.append(pa.table({**drawn_by, **rows(recipe, encoder, source)}))
    table = pa.concat_tables(parts)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, OUTPUT / f"{subject}-{task}.parquet")
    scores = by_source(table)
    figures = {name: figure(scores, name) for name in figures_of(table.column_names)}
    (OUTPUT / f"{subject}-{task}.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _encoder(recipe: Recipe, subject: str, task: str) -> Encoder:
    """Load the model as it would be released: RoPE base and cut of inference, the adapter on."""
    encoder = saved_encoder(EXTENDED / "student", recipe.quantize.rope_theta, recipe.quantize.max_tokens)
    if subject != "student":
        name = task if subject == "adapter" else "joint"
        load_adapter(encoder, name, ADAPTED / name)
    return place(encoder, precision=recipe.engine.precision, packing=recipe.engine.packing)


def _retrieval(recipe: Recipe, encoder: Encoder, source: str) -> Columns:
    """Compute nDCG@10 of each query with whole vectors, with vectors cut to each dimension, and with their signs."""
    pairs = read_split(CURATED, "pairs", "test", [source])
    sides = [encoder.encode(pairs[side].to_pylist(), side, progress=source) for side in ("query", "document")]
    relevant = [{row} for row in range(len(pairs))]

    def ndcg(dim: int, precision: str) -> Any:
        queries, documents = (stored(side, dim, precision, int8_limit=1.0) for side in sides)  # no int8 here
        return ndcg_at_10(rank(queries, documents, 10)[0], relevant)

    columns = {"ndcg": ndcg(encoder.dimensions, "float32"), "ndcg-binary": ndcg(encoder.dimensions, "binary")}
    return columns | {f"ndcg@{dim}": ndcg(dim, "float32") for dim in recipe.evaluate.truncate_dims}


def _text_matching(recipe: Recipe, encoder: Encoder, source: str) -> Columns:
    """Return cosine and human score of each pair."""
    pairs = read_split(CURATED, "scored", "test", [source])
    left, right = (
        encoder.encode(pairs[side].to_pylist(), "document", progress=source) for side in ("text_a", "text_b")
    )
    return {"similarity": (left * right).sum(axis=1), "score": pairs["score"].to_numpy()}


def _clustering(recipe: Recipe, encoder: Encoder, source: str) -> Columns:
    """Cluster the texts with several seeds; return the label and the clusters of each text as numbers."""
    rows = read_split(CURATED, "labelled", "test", [source])
    names, labels = np.unique(rows["label"].to_pylist(), return_inverse=True)
    embeddings = encoder.encode(rows["text"].to_pylist(), "document", progress=source)
    seeds = range(recipe.seed, recipe.seed + CLUSTERING_SEEDS)
    return {"label": labels} | {f"cluster {seed}": clusters(embeddings, len(names), seed) for seed in seeds}


def _classification(recipe: Recipe, encoder: Encoder, source: str) -> Columns:
    """Say which texts a logistic regression labels right that was fitted on dev, where no adapter trained."""
    fitted, scored = (read_split(CURATED, "labelled", split, [source]) for split in ("dev", "test"))
    embeddings = [encoder.encode(rows["text"].to_pylist(), "document", progress=source) for rows in (fitted, scored)]
    labels = [rows["label"].to_pylist() for rows in (fitted, scored)]
    return {"accuracy": accuracy(embeddings[0], labels[0], embeddings[1], labels[1])}


if __name__ == "__main__":
    main()
