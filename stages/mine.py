"""Mine: hard negatives of every training pair by teacher similarity, within a source and never across splits.

Writes data/mined: negatives.parquet (id, negatives, scores) and audit.json.
"""

import json
from pathlib import Path
from typing import Any

from stages.params import Params, load

CURATED = Path("data/curated")
EMBEDDED = Path("data/embedded")
OUTPUT = Path("data/mined")


def main() -> None:
    """Run the stage."""
    params = load()
    from stages.training.tracking import stage_run

    with stage_run(stage="mine", params=params.model_dump(include={"name", "mine"}), inputs=[CURATED, EMBEDDED]) as run:
        audit = mine_all(params, CURATED, EMBEDDED, OUTPUT)
        for source, figures in audit.items():
            run.log_metrics(
                {f"{source}.{name}": value for name, value in figures.items() if isinstance(value, int | float)}
            )
        run.log_artifact(OUTPUT / "audit.json")


def mine_all(params: Params, curated: Path, embedded: Path, output: Path) -> dict[str, dict[str, Any]]:
    """Mine each source's training pairs; returns the audit: shares and examples by source."""
    import pyarrow as pa
    from tqdm import tqdm

    from stages.corpus.readings import TeacherVectors
    from stages.corpus.tables import read_split, write_table

    teacher = TeacherVectors(embedded, params.embed.prompts, params.embed.max_tokens, params.embed.long)
    rows: list[dict[str, Any]] = []
    audit: dict[str, dict[str, Any]] = {}
    for source in tqdm(params.mine.sources, desc="mine", unit="source"):
        pairs = read_split(curated, "pairs", "train", [source]).to_pylist()
        found, audit[source] = _mine_source(params, teacher, pairs)
        rows += found
    schema = pa.schema([("id", pa.string()), ("negatives", pa.list_(pa.string())), ("scores", pa.list_(pa.float32()))])
    write_table(output / "negatives.parquet", rows, schema)
    (output / "audit.json").write_text(json.dumps(audit, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return audit


def _mine_source(
    params: Params, teacher: Any, pairs: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    import numpy as np

    from stages.corpus.mining import mine

    settings, sources = params.mine, [pair["source"] for pair in pairs]
    queries, documents = (
        teacher.of(side, [pair[side] for pair in pairs], sources).astype(np.float32) for side in ("query", "document")
    )
    mined = mine(
        queries,
        documents,
        num_negatives=settings.num_negatives,
        rank_window=settings.rank_window,
        relative_margin=settings.relative_margin,
    )
    rows = [
        {"id": pair["id"], "negatives": [pairs[row]["id"] for row in negatives], "scores": scores}
        for pair, negatives, scores in zip(pairs, mined.negatives, mined.scores, strict=True)
    ]
    few = [index for index, negatives in enumerate(mined.negatives) if len(negatives) < settings.num_negatives]
    examples = np.random.default_rng(params.seed).choice(
        len(pairs), min(settings.num_examples, len(pairs)), replace=False
    )
    return rows, {
        "pairs": len(pairs),
        "candidates": mined.num_candidates,
        "removed_by_margin": mined.num_removed / max(1, mined.num_candidates),
        "with_too_few_negatives": len(few) / len(pairs),
        "mean_positive_score": float(mined.positive_scores.mean()),
        "mean_negative_score": float(np.mean([score for scores in mined.scores for score in scores] or [0.0])),
        "examples": [
            {
                "query": pairs[index]["query"],
                "document": pairs[index]["document"],
                "score": float(mined.positive_scores[index]),
                "negatives": [pairs[row]["document"] for row in mined.negatives[index]],
                "negative_scores": mined.scores[index],
            }
            for index in examples
        ],
    }


if __name__ == "__main__":
    main()
