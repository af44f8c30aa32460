"""Score: the student, a task's adapter or the joint one on a task's test rows, each row kept for a paired comparison.

Writes data/scored/<subject>-<task>.parquet, rows with the columns that `comparison` reads, and their figures as JSON.
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.recipe.fields import TASKS
from stages.recipe.recipe import Recipe, load

if TYPE_CHECKING:
    from stages.modeling.encoder import Encoder

CURATED = Path("data/curated")
EXTENDED = Path("data/extended")
ADAPTED = Path("data/adapted")
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


def score(params: Recipe, subject: str, task: str) -> None:
    """Score every source of the task; write rows and figures."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch

    from stages.evaluation.evidence import units_of_tests
    from tests.ablations.comparison import UNITS, by_source, figure, figures_of

    torch.set_num_threads(params.engine.threads)
    encoder = _encoder(params, subject, task)
    of_task = {
        "retrieval": (_retrieval, params.evaluate.sources.retrieval),
        "text-matching": (_text_matching, params.evaluate.sources.text_matching),
        "clustering": (_clustering, params.evaluate.sources.clustering),
        "classification": (_classification, params.evaluate.sources.classification),
    }
    rows, sources = of_task[task]
    parts = []
    for source, units in units_of_tests(CURATED, {task: sources})[task].items():
        drawn_by = {"source": [source] * len(units), UNITS: units.reshape(len(units), -1).tolist()}
        parts.append(pa.table({**drawn_by, **rows(params, encoder, source)}))
    table = pa.concat_tables(parts)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, OUTPUT / f"{subject}-{task}.parquet")
    scores = by_source(table)
    figures = {name: figure(scores, name) for name in figures_of(table.column_names)}
    (OUTPUT / f"{subject}-{task}.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _encoder(params: Recipe, subject: str, task: str) -> "Encoder":
    """The model as it would be released: RoPE base and cut of inference, the adapter on."""
    from stages.modeling.adapters import load_adapter
    from stages.modeling.encoder import place, saved_encoder

    encoder = saved_encoder(EXTENDED / "student", params.quantize.rope_theta, params.quantize.max_tokens)
    if subject != "student":
        name = task if subject == "adapter" else "joint"
        load_adapter(encoder, name, ADAPTED / name)
    return place(encoder, precision=params.engine.precision, packing=params.engine.packing)


def _retrieval(params: Recipe, encoder: "Encoder", source: str) -> Columns:
    """nDCG@10 of each query: of the whole vectors, cut to each dimension, and of the signs of the whole."""
    from stages.corpus.tables import read_split
    from stages.evaluation.compression import stored
    from stages.metrics.retrieval import ndcg_at_10, rank

    pairs = read_split(CURATED, "pairs", "test", [source])
    sides = [encoder.encode(pairs[side].to_pylist(), side, progress=source) for side in ("query", "document")]
    relevant = [{row} for row in range(len(pairs))]

    def ndcg(dim: int, precision: str) -> Any:
        queries, documents = (stored(side, dim, precision, int8_limit=1.0) for side in sides)  # no int8 here
        return ndcg_at_10(rank(queries, documents, 10)[0], relevant)

    columns = {"ndcg": ndcg(encoder.dimensions, "float32"), "ndcg-binary": ndcg(encoder.dimensions, "binary")}
    return columns | {f"ndcg@{dim}": ndcg(dim, "float32") for dim in params.evaluate.truncate_dims}


def _text_matching(params: Recipe, encoder: "Encoder", source: str) -> Columns:
    """Cosine and people's score of each pair."""
    from stages.corpus.tables import read_split

    pairs = read_split(CURATED, "scored", "test", [source])
    left, right = (
        encoder.encode(pairs[side].to_pylist(), "document", progress=source) for side in ("text_a", "text_b")
    )
    return {"similarity": (left * right).sum(axis=1), "score": pairs["score"].to_numpy()}


def _clustering(params: Recipe, encoder: "Encoder", source: str) -> Columns:
    """Label and clusters of each text, as numbers."""
    import numpy as np

    from stages.corpus.tables import read_split
    from stages.metrics.clustering import clusters

    rows = read_split(CURATED, "labelled", "test", [source])
    names, labels = np.unique(rows["label"].to_pylist(), return_inverse=True)
    embeddings = encoder.encode(rows["text"].to_pylist(), "document", progress=source)
    seeds = range(params.seed, params.seed + CLUSTERING_SEEDS)
    return {"label": labels} | {f"cluster {seed}": clusters(embeddings, len(names), seed) for seed in seeds}


def _classification(params: Recipe, encoder: "Encoder", source: str) -> Columns:
    """Whether each text is labelled rightly by a logistic regression fitted on dev, which no adapter trained on."""
    from stages.corpus.tables import read_split
    from stages.metrics.classification import accuracy

    fitted, scored = (read_split(CURATED, "labelled", split, [source]) for split in ("dev", "test"))
    embeddings = [encoder.encode(rows["text"].to_pylist(), "document", progress=source) for rows in (fitted, scored)]
    labels = [rows["label"].to_pylist() for rows in (fitted, scored)]
    return {"accuracy": accuracy(embeddings[0], labels[0], embeddings[1], labels[1])}


if __name__ == "__main__":
    main()
