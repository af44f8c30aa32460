"""Mine: hard negatives of every training pair, within a source and never across splits, judged by the teacher.

Writes data/mined: negatives.parquet (id, negatives, scores), audit.json and audit.html.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.recipe.recipe import Recipe, load

if TYPE_CHECKING:
    import numpy as np

    from stages.mining.hard_negatives import Candidates, Mined
    from stages.teachers.teacher_vectors import TeacherVectors

CURATED = Path("data/curated")
EMBEDDED = Path("data/embedded")
OUTPUT = Path("data/mined")
# Relative margins of the audit's curve.
MARGINS = tuple(step / 50 for step in range(16))
STUDENT_BATCH = 32

Pairs = list[dict[str, Any]]
Student = Callable[[Sequence[str], str], "np.ndarray"]


def main() -> None:
    """Run the stage."""
    params = load()
    from stages.tracking.runs import stage_run

    inputs = [CURATED, EMBEDDED, *(Path(one) for one in (params.mine.student,) if one)]
    with stage_run(stage="mine", params=params.model_dump(include={"name", "mine"}), inputs=inputs) as run:
        audit = mine_all(params, CURATED, EMBEDDED, OUTPUT)
        for source, figures in audit.items():
            run.log_metrics(
                {f"{source}.{name}": value for name, value in figures.items() if isinstance(value, int | float)}
            )
        run.log_artifact(OUTPUT / "audit.json")
        run.log_artifact(OUTPUT / "audit.html")


def mine_all(params: Recipe, curated: Path, embedded: Path, output: Path) -> dict[str, dict[str, Any]]:
    """Mine each source's training pairs; returns the audit: shares, margin curve and examples by source."""
    import pyarrow as pa
    from tqdm import tqdm

    from stages.corpus.tables import read_split, write_table
    from stages.reporting.mining_page import render_mining
    from stages.teachers.teacher_vectors import TeacherVectors

    teacher = TeacherVectors(embedded, params.embed)
    student = _student(params)
    rows: list[dict[str, Any]] = []
    audit: dict[str, dict[str, Any]] = {}
    for source in tqdm(params.mine.sources, desc="mine", unit="source"):
        pairs = read_split(curated, "pairs", "train", [source]).to_pylist()
        found, audit[source] = _mine_source(params, teacher, student, pairs)
        rows += found
    schema = pa.schema([("id", pa.string()), ("negatives", pa.list_(pa.string())), ("scores", pa.list_(pa.float32()))])
    write_table(output / "negatives.parquet", rows, schema)
    (output / "audit.json").write_text(json.dumps(audit, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    page = render_mining(params.mine.model_dump(mode="json"), audit)
    (output / "audit.html").write_text(page, encoding="utf-8")
    return audit


def _student(params: Recipe) -> Student | None:
    """An earlier build's retriever: texts of a side -> unit vectors."""
    if params.mine.student is None:
        return None
    import numpy as np
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(params.mine.student, trust_remote_code=False, local_files_only=True)
    model.max_seq_length = min(model.max_seq_length or params.embed.max_tokens, params.embed.max_tokens)

    def encode(texts: Sequence[str], side: str) -> "np.ndarray":
        vectors = model.encode(list(texts), prompt_name=side, batch_size=STUDENT_BATCH, normalize_embeddings=True)
        return np.asarray(vectors, dtype=np.float32)

    return encode


def _candidates(
    params: Recipe, student: Student | None, pairs: Pairs, queries: "np.ndarray", documents: "np.ndarray"
) -> "Candidates":
    """The lists that the recipe names, merged."""
    import numpy as np

    from stages.metrics.lexical import bm25_search
    from stages.metrics.retrieval import rank
    from stages.mining.hard_negatives import listed, merged, nearest

    window, bm25 = params.mine.rank_window, params.evaluate.bm25
    texts = {side: [pair[side] for pair in pairs] for side in ("query", "document")}

    def ranked(name: str) -> "np.ndarray":
        if name == "student":
            assert student is not None, "the recipe names its folder"
            ours, theirs = (student(texts[side], side) for side in ("query", "document"))
            return rank(ours, theirs, window[1] + 1)[0]
        found, scores = bm25_search(texts["query"], texts["document"], window[1] + 1, bm25.k1, bm25.b)
        return np.where(scores > 0, found, -1)  # no word in common: the list ends before

    return merged(
        [
            nearest(queries, documents, window)
            if name == "teacher"
            else listed(queries, documents, ranked(name), window)
            for name in params.mine.candidates
        ]
    )


def _mine_source(
    params: Recipe, teacher: "TeacherVectors", student: Student | None, pairs: Pairs
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    import numpy as np

    from stages.mining.hard_negatives import margin_curve, mine

    settings, sources = params.mine, [pair["source"] for pair in pairs]
    queries, documents = (
        teacher.of(side, [pair[side] for pair in pairs], sources).astype(np.float32) for side in ("query", "document")
    )
    positive = np.einsum("qt,qt->q", queries, documents, dtype=np.float32)
    candidates = _candidates(params, student, pairs, queries, documents)
    mined = mine(
        candidates,
        positive,
        num_negatives=settings.num_negatives,
        relative_margin=settings.relative_margin,
        absolute_margin=settings.absolute_margin,
    )
    rows = [
        {"id": pair["id"], "negatives": [pairs[row]["id"] for row in negatives], "scores": scores}
        for pair, negatives, scores in zip(pairs, mined.negatives, mined.scores, strict=True)
    ]
    few = [index for index, negatives in enumerate(mined.negatives) if len(negatives) < settings.num_negatives]
    return rows, {
        "pairs": len(pairs),
        "candidates": mined.num_candidates,
        "removed_by_margin": mined.num_removed / max(1, mined.num_candidates),
        "with_too_few_negatives": len(few) / len(pairs),
        "mean_positive_score": float(positive.mean()),
        "mean_negative_score": float(np.mean([score for scores in mined.scores for score in scores] or [0.0])),
        "margin_curve": margin_curve(candidates, positive, settings.num_negatives, MARGINS),
        "suspects": _suspects(pairs, positive, mined, settings.num_examples),
        "examples": _examples(params, pairs, positive, mined),
    }


def _examples(params: Recipe, pairs: Pairs, positive: "np.ndarray", mined: "Mined") -> list[dict[str, Any]]:
    """Some pairs with the negatives that they got."""
    import numpy as np

    generator = np.random.default_rng(params.seed)
    chosen = generator.choice(len(pairs), min(params.mine.num_examples, len(pairs)), replace=False)
    return [
        {
            "query": pairs[index]["query"],
            "document": pairs[index]["document"],
            "score": float(positive[index]),
            "negatives": [pairs[row]["document"] for row in mined.negatives[index]],
            "negative_scores": mined.scores[index],
        }
        for index in chosen
    ]


def _suspects(pairs: Pairs, positive: "np.ndarray", mined: "Mined", number: int) -> list[dict[str, Any]]:
    """Documents that score furthest above the query's own: likely answers that nobody labelled."""
    above = [(one[1] - float(positive[query]), query, *one) for query, one in enumerate(mined.suspects) if one]
    above.sort(key=lambda one: (-one[0], one[1]))
    return [
        {
            "query": pairs[query]["query"],
            "document": pairs[query]["document"],
            "score": float(positive[query]),
            "suspect": pairs[row]["document"],
            "suspect_score": score,
        }
        for _, query, row, score in above[:number]
    ]


if __name__ == "__main__":
    main()
