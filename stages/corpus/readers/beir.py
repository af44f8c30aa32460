"""BEIR folders: corpus.jsonl, queries.jsonl, and qrels/<split>.tsv, which judges documents for queries."""

from collections.abc import Iterator, Sequence

from stages.corpus.locations import File
from stages.corpus.readers.files import rows_of_file
from stages.corpus.records import Record, Unreadable, text_of

_JUDGEMENT = ("query-id", "corpus-id", "score")


def pairs(files: Sequence[File]) -> Iterator[Record]:
    """Yield pairs of a query and its best judged document, title and text; the entity is the document.

    They come in the corpus's order: the judged queries are held in memory, the corpus is not.

    Args:
        files: one `corpus.jsonl`, one `queries.jsonl` and one or more `.tsv` of judgements.
    """
    best, faulty = _best_documents([file for file in files if file.name.lower().endswith(".tsv")])
    yield from faulty
    queries: dict[str, str] = {}
    for row in _rows(files, "queries.jsonl"):
        if isinstance(row, Unreadable):
            yield row
        elif row["_id"] in best:
            queries[row["_id"]] = row["text"]
    judged: dict[str, list[str]] = {}
    for query, (_, document) in best.items():
        judged.setdefault(document, []).append(query)
    for row in _rows(files, "corpus.jsonl"):
        if isinstance(row, Unreadable):
            yield row
            continue
        for query in judged.pop(row["_id"], []):
            text = f"{row['title']} {row['text']}".strip()
            yield {"entity": row["_id"], "query": queries.get(query, ""), "document": text}
    yield from (Unreadable("judged, but not in corpus.jsonl", document) for document in judged)


def _rows(files: Sequence[File], name: str) -> Iterator[Record]:
    found = [file for file in files if file.name == name]
    if len(found) != 1:
        raise ValueError(f"a BEIR source needs one {name}, got {[str(file) for file in files]}; correct its files")
    for row in rows_of_file(found[0], ()):
        if isinstance(row, Unreadable):
            yield row
            continue
        try:
            texts = {key: text_of(row.get(key)) for key in ("_id", "title", "text")}
        except TypeError as error:
            yield Unreadable(f"expected texts in _id, title and text, got {error}", str(row))
            continue
        if texts["_id"] and "text" in row:
            yield texts
        else:
            yield Unreadable("expected _id and text", str(row))


def _best_documents(judgements: Sequence[File]) -> tuple[dict[str, tuple[float, str]], list[Unreadable]]:
    """Find for each query its highest score above zero and the document that has it, the first of equals.

    Returns:
        Scores and documents by query, and the judgements that cannot be read.
    """
    best: dict[str, tuple[float, str]] = {}
    faulty: list[Unreadable] = []
    for file in judgements:
        for row in rows_of_file(file, _JUDGEMENT):
            if isinstance(row, Unreadable):
                faulty.append(row)
                continue
            try:
                score = float(row["score"])
            except ValueError:
                faulty.append(Unreadable("score: expected a number", str(row)))
                continue
            if score > max(0.0, best.get(row["query-id"], (0.0, ""))[0]):
                best[row["query-id"]] = score, row["corpus-id"]
    return best, faulty
