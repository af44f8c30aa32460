"""A `/v1/embeddings` endpoint as teacher, against a server on loopback: order, limits, faults, keys, other models."""

import base64
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

from flows.failure_causes import Fault, classify
from stages.recipe.embed import Endpoint
from stages.teachers.endpoint import EndpointTeacher
from stages.teachers.teacher import ReadingRule
from stages.teachers.vector_store import VectorStore
from stages.tracking.failure_report import described

PLAIN_RULE = ReadingRule("", 96, 96)
TEXTS = [f"text number {number}" for number in range(11)]
KEY = "sk-secret-that-nobody-may-see"


@dataclass
class Server:
    """What the server answers with, and what it was asked."""

    url: str = ""
    seed: int = 0
    noise: float = 0.0
    largest_batch: int = 1000
    longest_text: int = 10_000  # in characters
    too_large: int = 413  # the status that refuses both
    words: str = "no"
    faults: list[tuple[int, dict[str, str]]] = field(default_factory=list)  # status and headers of the next answers
    change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = list
    answer: Any = None  # instead of vectors
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
            texts = request["input"]
            if len(texts) > state.largest_batch or max(map(len, texts)) > state.longest_text:
                status = state.too_large
            rows = [
                {"object": "embedding", "index": index, "embedding": state.vector(text).tolist()}
                for index, text in enumerate(request["input"])
            ]
            answer: Any = {"object": "list", "model": request["model"], "data": state.change(rows)[::-1]}
            if status != 200:
                answer = {
                    "error": {"message": f"{state.words}, {self.headers['Authorization']}", "type": "x", "code": "x"}
                }
            answer = answer if state.answer is None else state.answer
            content = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
            self.send_response(status)
            for name, value in {
                **headers,
                "Content-Type": "text/html" if isinstance(answer, str) else "application/json",
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
    fields |= {"batch_size": 3, "parallel": 2, "max_retries": 2, "timeout": 10.0, "extra_body": {}, "too_long": "stop"}
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
    kind, fault = (ValueError, Fault.FINAL) if status == 401 else (ConnectionError, Fault.NETWORK)
    with pytest.raises(kind, match=r"model big: no embeddings: .*no, Bearer \*\*\*") as refused:
        load().embed(TEXTS[:1], PLAIN_RULE)
    assert classify([described(refused.value)]) is fault, "the flow tries again where that can help"
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
        (lambda rows: [row | {"embedding": [[1.0, 2.0]] * 2} for row in rows], r"shape \[2, 2\].*a vector per token"),
        (lambda rows: [row | {"embedding": [[1.0]] * 2 + [[1.0, 2.0]]} for row in rows], "expected a list of numbers"),
        (lambda rows: [row | {"embedding": "no base64"} for row in rows], "got 'no base64'.* expected a list of num"),
        (lambda rows: [row | {"embedding": [None, 1.0]} for row in rows], "list of numbers|without direction"),
        (lambda rows: [row | {"embedding": [float("nan"), 1.0]} for row in rows], "a vector without direction"),
        (lambda rows: [row | {"embedding": []} for row in rows], "or empty ones"),
    ],
)
def test_an_answer_that_is_no_vector_for_each_text_is_refused(
    server: Server, load: Any, change: Any, message: str
) -> None:
    server.change = change
    with pytest.raises(ValueError, match=rf"{server.url}, model big: .*{message}"):
        load().embed(TEXTS[:3], PLAIN_RULE)


def test_base64_is_read(server: Server, load: Any) -> None:
    plain = load().embed(TEXTS[:3], PLAIN_RULE)
    server.change = lambda rows: [
        row | {"embedding": base64.b64encode(np.array(row["embedding"], dtype="<f4").tobytes()).decode()}
        for row in rows
    ]
    np.testing.assert_array_equal(load().embed(TEXTS[:3], PLAIN_RULE), plain)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_batch_that_the_server_refuses_is_halved(server: Server, load: Any, status: int) -> None:
    plain = load().embed(TEXTS, PLAIN_RULE)
    server.largest_batch, server.too_large = 2, status
    np.testing.assert_array_equal(load(batch_size=11).embed(TEXTS, PLAIN_RULE), plain)


@pytest.mark.parametrize("status", [400, 413, 422, 500])
def test_a_text_that_is_too_long_is_named_or_cut(
    server: Server, load: Any, capsys: pytest.CaptureFixture[str], status: int
) -> None:
    server.longest_text, server.too_large = 300, status
    server.words = "input (522 tokens) is too large to process"  # of llama.cpp, whose status is 500
    texts = [*TEXTS[:3], "the deed of the house " + 100 * "word ", *TEXTS[3:5]]
    named = r"asked for the text of 522 characters that begins 'the deed of the house word .*too_long to cut"
    with pytest.raises(ValueError, match=named):
        load(max_retries=0).embed(texts, PLAIN_RULE)
    found = load(too_long="cut", max_retries=0).embed(texts, PLAIN_RULE)
    # 522 characters become 391, then 293, which the server takes.
    plain = load().embed([*texts[:3], texts[3][:293], *texts[4:]], PLAIN_RULE)
    np.testing.assert_array_equal(found, plain)
    assert "1 of 6 texts were too long for it and cut" in capsys.readouterr().err


def test_a_refusal_for_another_reason_than_size_ends(server: Server, load: Any) -> None:
    server.longest_text = 3  # the probe itself is refused
    with pytest.raises(ValueError, match=r"no embeddings: .*413"):
        _ = load(too_long="cut").fingerprint
    with pytest.raises(ValueError, match=r"no embeddings: .*413.*text number 0"):
        load(too_long="cut").embed(TEXTS, PLAIN_RULE)


def test_keys_of_the_recipe_go_into_the_request_and_the_fingerprint(server: Server, load: Any) -> None:
    first = load().fingerprint
    assert "extra_body" not in first
    teacher = load(extra_body={"truncate_prompt_tokens": -1})
    assert teacher.fingerprint["digest"] != first["digest"]
    teacher.embed(TEXTS[:1], PLAIN_RULE)
    assert [request.get("truncate_prompt_tokens") for request in server.asked] == [None, -1, -1]
    assert load(too_long="cut").fingerprint == first, "a text that is refused has no other vector"


def test_a_wait_of_minutes_is_named(server: Server, load: Any) -> None:
    server.faults = [(429, {"Retry-After": "600"})]
    with pytest.raises(ConnectionError, match=r"Retry-After: 600.*run again later.*kept"):
        load().embed(TEXTS[:1], PLAIN_RULE)


@pytest.mark.parametrize(
    "answer",
    ["<html>It works!</html>", {"error": {"message": "no such model"}}, [[0.1, 0.2]], {"data": 5}],
)
def test_an_answer_of_another_kind_names_the_address(server: Server, load: Any, answer: Any) -> None:
    server.answer = answer
    with pytest.raises(ValueError, match=rf"{server.url}, model big: got .* instead of vectors; give the address of"):
        load().embed(TEXTS[:2], PLAIN_RULE)


def test_a_key_with_a_line_break_is_used_and_another_is_refused_without_showing_it(
    server: Server, load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILL_KEY", f"{KEY}\n")  # as in a file of secrets
    load().embed(TEXTS[:1], PLAIN_RULE)
    assert server.keys == {f"Bearer {KEY}"}
    monkeypatch.setenv("STILL_KEY", f"“{KEY}”")
    with pytest.raises(ValueError, match="STILL_KEY holds characters that no key has; export the key alone") as refused:
        load().embed(TEXTS[:1], PLAIN_RULE)
    assert KEY not in str(refused.value)


def test_proxies_that_cannot_be_used_are_named(server: Server, load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks9://proxy.example:1080")
    assert load().embed(TEXTS[:2], PLAIN_RULE).shape == (2, 5), "a server on this machine needs none"
    with pytest.raises(ValueError, match=r"the environment's proxies cannot be used .*correct HTTP_PROXY"):
        load(url="http://embeddings.invalid/v1").embed(TEXTS[:2], PLAIN_RULE)


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://me:secret@127.0.0.1:9")
    return "http://127.0.0.1:9"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])  # noqa: S104
def test_a_server_on_this_machine_is_asked_without_a_proxy(server: Server, load: Any, proxy: str, host: str) -> None:
    address = server.url.replace("127.0.0.1", host)
    assert load(url=address).embed(TEXTS[:2], PLAIN_RULE).shape == (2, 5)


def test_a_lost_connection_names_its_cause_and_the_proxy(load: Any, proxy: str) -> None:
    with pytest.raises(ConnectionError, match=r"Connection error.*Connection refused") as refused:
        load(url="http://embeddings.invalid/v1", max_retries=0).embed(TEXTS[:1], PLAIN_RULE)
    assert f"through the proxy {proxy}: add embeddings.invalid to NO_PROXY" in str(refused.value)
    assert "secret" not in str(refused.value)
    with pytest.raises(ConnectionError, match=r"Connection error.*Connection refused") as refused:
        load(url="http://127.0.0.1:9/v1", max_retries=0).embed(TEXTS[:1], PLAIN_RULE)
    assert "proxy" not in str(refused.value)


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
