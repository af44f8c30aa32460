"""BEIR folders: corpus.jsonl and queries.jsonl, and qrels/<split>.tsv that judges documents for queries."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def pairs(files: Sequence[Path]) -> Iterator[Record]:
    """Pairs of a query and its best judged document, title and text; the entity is the document.

    Args:
        files: one `corpus.jsonl`, one `queries.jsonl` and one or more `.tsv` of judgements.
    """
    queries = {row["_id"]: row["text"] for row in _lines(files, "queries.jsonl")}
    best = _best_judged([path for path in files if path.suffix == ".tsv"])
    wanted = set(best.values())
    documents = {row["_id"]: row for row in _lines(files, "corpus.jsonl") if row["_id"] in wanted}
    for query, document in best.items():
        title, text = documents[document].get("title", ""), documents[document]["text"]
        yield {"entity": document, "query": queries[query], "document": f"{title} {text}".strip()}


def _lines(files: Sequence[Path], name: str) -> Iterator[Record]:
    found = [path for path in files if path.name == name]
    if len(found) != 1:
        raise ValueError(f"a BEIR source needs one {name}, got {[str(path) for path in files]}; correct its files")
    with found[0].open(encoding="utf-8") as stream:
        yield from (json.loads(line) for line in stream if line.strip())


def _best_judged(judgements: Sequence[Path]) -> dict[str, str]:
    """Query to the document of its highest score above zero, the first of equals."""
    best: dict[str, tuple[float, str]] = {}
    for path in judgements:
        with path.open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream, delimiter="\t"):
                score = float(row["score"])
                if score > max(0.0, best.get(row["query-id"], (0.0, ""))[0]):
                    best[row["query-id"]] = score, row["corpus-id"]
    return {query: document for query, (_, document) in best.items()}
