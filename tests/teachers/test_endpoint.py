"""A `/v1/embeddings` endpoint as teacher, against a server on loopback: order, limits, faults, keys, other models."""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.recipe.embed import Endpoint
from stages.teachers.endpoint import EndpointTeacher
from stages.teachers.teacher import ReadingRule
from stages.teachers.vector_store import VectorStore

PLAIN_RULE = ReadingRule("", 96, 96)
TEXTS = [f"text number {number}" for number in range(11)]
KEY = "sk-secret-that-nobody-may-see"


@dataclass
class Server:
    """What the server answers with, and what it was asked."""

    url: str = ""
    seed: int = 0
    noise: float = 0.0
    faults: list[tuple[int, dict[str, str]]] = field(default_factory=list)  # status and headers of the next answers
    change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = list
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)

    def vector(self, text: str) -> np.ndarray:
        of_text = np.random.default_rng([self.seed, *text.encode()]).normal(size=5)
        return of_text + self.noise * np.random.default_rng().normal(size=5)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.asked.append({"path": self.path, "time": time.monotonic(), **request})
            state.keys.add(self.headers["Authorization"])
            status, headers = state.faults.pop(0) if state.faults else (200, {})
            rows = [
                {"object": "embedding", "index": index, "embedding": state.vector(text).tolist()}
                for index, text in enumerate(request["input"])
            ]
            answer: dict[str, Any] = {"object": "list", "model": request["model"], "data": state.change(rows)[::-1]}
            if status != 200:
                answer = {"error": {"message": f"no, {self.headers['Authorization']}", "type": "x", "code": "x"}}
            content = json.dumps(answer).encode()
            self.send_response(status)
            for name, value in {
                **headers,
                "Content-Type": "application/json",
                "Content-Length": str(len(content)),
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{running.server_port}/v1"
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture
def load(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., EndpointTeacher]:
    monkeypatch.setenv("STILL_KEY", KEY)
    fields = {"kind": "endpoint", "url": server.url, "model": "big", "key_variable": "STILL_KEY"}
    fields |= {"batch_size": 3, "parallel": 2, "max_retries": 2, "timeout": 10.0}
    return lambda **changes: EndpointTeacher(Endpoint(**fields | changes), tmp_path / "probes")


def test_each_text_gets_its_vector_though_answers_come_in_any_order(server: Server, load: Any) -> None:
    found = load().embed(TEXTS, ReadingRule("query: ", 96, 96))
    expected = np.stack([server.vector(f"query: {text}") for text in TEXTS])
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)
    assert sorted(len(request["input"]) for request in server.asked) == [2, 3, 3, 3]
    assert {request["path"] for request in server.asked} == {"/v1/embeddings"}
    assert {request["model"] for request in server.asked} == {"big"}
    assert server.keys == {f"Bearer {KEY}"}


def test_it_waits_as_long_as_the_server_asks_and_tries_again(server: Server, load: Any) -> None:
    server.faults = [(429, {"Retry-After": "1"}), (503, {"retry-after-ms": "10"})]
    found = load().embed(TEXTS[:2], PLAIN_RULE)
    assert found.shape == (2, 5)
    assert len(server.asked) == 3
    assert server.asked[1]["time"] - server.asked[0]["time"] >= 1.0


@pytest.mark.parametrize("status", [401, 429])
def test_a_final_refusal_is_reported_without_the_key(server: Server, load: Any, status: int) -> None:
    server.faults = [(status, {"retry-after-ms": "1"})] * 3
    with pytest.raises(ValueError, match=r"model big: no embeddings: .*no, Bearer \*\*\*") as refused:
        load().embed(TEXTS[:1], PLAIN_RULE)
    assert KEY not in str(refused.value)
    assert refused.value.__cause__ is None, "a traceback would show the client's own error, the key in it"
    assert len(server.asked) == (1 if status == 401 else 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:-1], r"got vectors number \[0, 1\]..., expected 0 to 2, one for each text"),
        (lambda rows: [row | {"index": 0} for row in rows], r"got vectors number \[0, 0, 0\]"),
        (lambda rows: [*rows, rows[0]], r"got vectors number \[0, 0, 1, 2\]"),
        (lambda rows: [row | {"embedding": [0.0] * 5} for row in rows], "a vector without direction"),
        (lambda rows: [row | {"embedding": [1.0] * (3 + row["index"])} for row in rows], "of several dimensions"),
    ],
)
def test_an_answer_that_is_no_vector_for_each_text_is_refused(
    server: Server, load: Any, change: Any, message: str
) -> None:
    server.change = change
    with pytest.raises(ValueError, match=message):
        load().embed(TEXTS[:3], PLAIN_RULE)


def test_a_missing_key_is_named(load: Any) -> None:
    with pytest.raises(ValueError, match="key_variable: NO_SUCH_KEY is not set; export it"):
        load(key_variable="NO_SUCH_KEY").embed(TEXTS, PLAIN_RULE)
    assert load(key_variable=None).embed(TEXTS[:1], PLAIN_RULE).shape == (1, 5)


def test_the_same_model_is_known_again_and_another_behind_its_name_is_noticed(
    server: Server, load: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    first = load().fingerprint
    assert (first["endpoint"], first["dimensions"]) == ("big", 5)
    server.noise = 1e-4  # servers do not compute the same bits twice
    assert load().fingerprint == first
    assert load(model="other").fingerprint["digest"] != first["digest"]
    assert capsys.readouterr().err == ""
    server.seed = 1
    changed = load().fingerprint
    assert changed["digest"] != first["digest"]
    assert "big answers otherwise than before (cosine" in capsys.readouterr().err
    assert load().fingerprint == changed
    server.seed = 0
    assert load().fingerprint == first


def test_no_file_holds_the_key(server: Server, load: Any, tmp_path: Path) -> None:
    teacher = load()
    store = VectorStore(tmp_path / "store", teacher.fingerprint)
    store.add(store.keys(PLAIN_RULE, TEXTS), teacher.embed(TEXTS, PLAIN_RULE))
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) == 3  # manifest, shard, probe
    assert not any(KEY.encode() in content for content in written)
    assert KEY not in repr(teacher)


def test_without_the_client_the_error_says_how_to_install_it(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ModuleNotFoundError, match=r"not installed; pip install 'openai~=3.57'"):
        load().embed(TEXTS, PLAIN_RULE)
