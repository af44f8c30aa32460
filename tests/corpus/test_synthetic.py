"""Questions that a language model writes, asked of a server on loopback: kept, read again, refused, resumed."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from stages.corpus.readers.synthetic import queries
from stages.corpus.records import Unreadable

PROMPT = "Write two questions as a JSON list about this text:\n{text}"
KEY = "sk-secret-that-nobody-may-see"


@dataclass
class Server:
    """The server's answers, and what it was asked."""

    url: str = ""
    answer: Callable[[str], str] = lambda text: json.dumps([f"What about {text.split()[-1]}?", f"Why {len(text)}?"])
    faults: list[tuple[int, dict[str, str]]] = field(default_factory=list)  # status and headers of the next answers
    asked: list[str] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.chdir(tmp_path)
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = request["messages"][0]["content"].partition("\n")[2]
            state.keys.add(self.headers["Authorization"])
            status, headers = state.faults.pop(0) if state.faults else (200, {})
            message = {"role": "assistant", "content": state.answer(text)}
            answer: dict[str, Any] = {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": request["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            }
            if status == 200:
                state.asked.append(text)
            else:
                answer = {"error": {"message": f"no, {self.headers['Authorization']}", "type": "x", "code": "x"}}
            content = json.dumps(answer).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Type": "application/json", "Content-Length": len(content)}.items():
                self.send_header(name, str(value))
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


def manual(count: int) -> list[Path]:
    folder = Path("manual")
    folder.mkdir(exist_ok=True)
    for number in range(count):
        (folder / f"{number:02}.md").write_text(f"# Part {number}\n\nThe valve of part {number} is closed by hand.\n")
    return sorted(folder.iterdir())


def read(server: Server, files: list[Path], **options: Any) -> list[Any]:
    return list(queries(files, server.url, "writer", PROMPT, min_words=3, **options))


def test_each_question_is_a_pair_with_its_section(server: Server) -> None:
    found = read(server, manual(1))
    text = "Part 0\nThe valve of part 0 is closed by hand."
    assert found == [
        {"entity": "manual/00.md", "query": "What about hand.?", "document": text},
        {"entity": "manual/00.md", "query": f"Why {len(text)}?", "document": text},
    ]


def test_a_second_reading_asks_nothing_and_gives_the_same_rows(server: Server) -> None:
    files = manual(20)
    first = read(server, files, parallel=3)
    assert [row["entity"] for row in first[::2]] == [f"manual/{number:02}.md" for number in range(20)]
    assert len(server.asked) == 20
    assert read(server, files) == first
    assert len(server.asked) == 20


def test_another_prompt_parameter_asks_again(server: Server) -> None:
    read(server, manual(1))
    read(server, manual(1), temperature=0.5)
    assert len(server.asked) == 2


def test_a_busy_server_is_asked_again_when_it_says(server: Server) -> None:
    server.faults = [(429, {"Retry-After": "0.1"}), (503, {})]
    assert len(read(server, manual(1))) == 2


def test_a_server_that_stops_loses_no_answer(server: Server) -> None:
    files = manual(6)
    server.faults = [(200, {}), (200, {}), (400, {})]
    with pytest.raises(ValueError, match="the answers so far are kept, so run again"):
        read(server, files, parallel=1)
    before = len(server.asked)
    assert before >= 2
    assert len(read(server, files, parallel=1)) == 12
    assert sorted(server.asked) == sorted(set(server.asked))  # no section twice


def test_the_key_goes_to_the_server_alone(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WRITER_KEY", KEY)
    read(server, manual(1), key_variable="WRITER_KEY")
    assert server.keys == {f"Bearer {KEY}"}
    server.faults = [(401, {})]
    with pytest.raises(ValueError, match="no questions") as refused:
        read(server, manual(1), key_variable="WRITER_KEY", seed=1)
    assert KEY not in str(refused.value)
    assert not any(KEY in file.read_text() for file in Path(".stillhouse").rglob("*.json"))


def test_a_key_that_is_not_set_is_named(server: Server) -> None:
    with pytest.raises(ValueError, match="WRITER_KEY is not set"):
        read(server, manual(1), key_variable="WRITER_KEY")


@pytest.mark.parametrize("answer", ["I cannot help with that.", "", "[]", '{"question": "x"}', "[1, null]"])
def test_an_answer_without_questions_is_a_rejected_row(server: Server, answer: str) -> None:
    server.answer = lambda _: answer
    (row,) = read(server, manual(1))
    assert isinstance(row, Unreadable)
    assert row.reason == "the model gave no JSON list of questions"


@pytest.mark.parametrize(
    "answer",
    ['["Who closes it?"]', '```json\n["Who closes it?"]\n```', '[{"kind": "question", "question": "Who closes  it?"}]'],
)
def test_lists_are_understood_plain_fenced_and_of_objects(server: Server, answer: str) -> None:
    server.answer = lambda _: answer
    assert [row["query"] for row in read(server, manual(1))] == ["Who closes it?"]


def test_a_copy_of_the_text_is_a_rejected_row(server: Server) -> None:
    server.answer = lambda _: '["the valve of Part 0 is closed by hand?", "Who closes it?"]'
    copy, question = read(server, manual(1))
    assert isinstance(copy, Unreadable)
    assert copy.reason == "the question is a copy of the text"
    assert question["query"] == "Who closes it?"


def test_a_prompt_without_a_place_for_the_text_is_refused(server: Server) -> None:
    with pytest.raises(ValueError, match=r"expected the mark \{text\}"):
        list(queries(manual(1), server.url, "writer", "Write questions."))
