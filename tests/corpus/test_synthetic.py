"""Questions that a language model writes, asked of a server on loopback: kept, read again, refused, resumed."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from stages.corpus.curation import curate_sources
from stages.corpus.readers.synthetic import queries
from stages.corpus.records import Unreadable
from stages.recipe.curate import LanguageId
from stages.recipe.recipe import read as read_recipe
from stages.reporting.validation import render_validation
from tests.checkouts import TINY
from tests.corpus.builders import Ingested, source

PROMPT = "Write two questions as a JSON list about this text:\n{text}"
KEY = "sk-secret-that-nobody-may-see"


@dataclass
class Server:
    """The server's answers, and what it was asked."""

    url: str = ""
    answer: Callable[[str], str] = lambda text: json.dumps([f"What is part {text.split()[1]}?", f"Why {len(text)}?"])
    faults: list[tuple[int, dict[str, str]]] = field(default_factory=list)  # status and headers of the next answers
    asked: list[str] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)  # beside the texts that were asked about
    keys: set[str | None] = field(default_factory=set)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.chdir(tmp_path)
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            prompt, _, text = request["messages"][0]["content"].partition("\n")
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
                state.prompts.append(prompt)
            else:
                fault = f"no, {self.headers['Authorization']}"
                answer = {"error": {"message": fault, "type": "x", "code": headers.pop("code", "x")}}
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
    asked = {"url": server.url, "model": "writer", "question": PROMPT, "min_words": 3}
    return list(queries(files, **asked | options))


def test_a_section_and_its_first_question_are_a_pair_that_curate_keeps(server: Server, tmp_path: Path) -> None:
    found = read(server, manual(2))
    texts = [f"Part {part}\nThe valve of part {part} is closed by hand." for part in range(2)]
    assert found == [
        {"entity": f"manual/{part:02}.md", "query": f"What is part {part}?", "document": text, "origin": "model"}
        for part, text in enumerate(texts)
    ]
    assert Ingested(source(found), tmp_path / "ingested").rejected_later == []


def test_kinds_take_turns_and_stay_with_their_sections(server: Server) -> None:
    prompts = {kind: f"Write {kind} as a JSON list:\n{{text}}" for kind in ("question", "keywords", "statement")}
    read(server, manual(30), **prompts)
    before = dict(zip(server.asked, server.prompts, strict=True))
    assert {prompt.split()[1] for prompt in before.values()} == set(prompts)
    read(server, manual(31), **prompts)
    assert len(server.asked) == 31, "a section more is one question more"


def test_a_second_reading_asks_nothing_and_gives_the_same_rows(server: Server) -> None:
    files = manual(20)
    first = read(server, files, parallel=3)
    assert [row["entity"] for row in first] == [f"manual/{number:02}.md" for number in range(20)]
    assert len(server.asked) == 20
    assert read(server, files) == first
    assert len(server.asked) == 20


def test_another_prompt_parameter_asks_again(server: Server) -> None:
    read(server, manual(1))
    read(server, manual(1), temperature=0.5)
    assert len(server.asked) == 2


def test_a_busy_server_is_asked_again_when_it_says(server: Server) -> None:
    server.faults = [(429, {"Retry-After": "0.1"}), (503, {})]
    assert len(read(server, manual(1))) == 1
    assert not server.faults


def test_a_server_that_stops_loses_no_answer(server: Server) -> None:
    files = manual(6)
    server.faults = [(200, {}), (200, {}), (400, {})]
    with pytest.raises(ValueError, match="the answers so far are kept, so run again"):
        read(server, files, parallel=1)
    before = len(server.asked)
    assert before >= 2
    assert len(read(server, files, parallel=1)) == 6
    assert sorted(server.asked) == sorted(set(server.asked))  # no section twice


def test_a_server_that_is_away_is_a_fault_that_may_pass(server: Server) -> None:
    server.faults = [(503, {"retry-after-ms": "1"})] * 9
    with pytest.raises(ConnectionError, match=r"no questions: .*503.*the answers so far are kept"):
        read(server, manual(1), max_retries=1)


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


@pytest.mark.parametrize("code", ["content_filter", "context_length_exceeded"])
def test_a_text_that_the_server_refuses_is_a_rejected_row_and_the_others_are_asked(server: Server, code: str) -> None:
    server.faults = [(400, {"code": code})]
    refused, question = read(server, manual(2), parallel=1)
    assert isinstance(refused, Unreadable)
    assert "Error code: 400" in refused.text
    assert question["query"] == "What is part 1?"


def test_a_copy_of_the_text_is_passed_over(server: Server) -> None:
    server.answer = lambda _: '["the valve of Part 0, is closed by hand?", "Who closes it?"]'
    assert [row["query"] for row in read(server, manual(1))] == ["Who closes it?"]


def test_copies_alone_are_a_rejected_row(server: Server) -> None:
    server.answer = lambda _: '["the valve of Part 0, is closed by hand?", "By hand."]'
    (copy,) = read(server, manual(1))
    assert copy == Unreadable("the question is a copy of the text", "the valve of Part 0, is closed by hand?")


def test_a_question_in_another_language_is_rejected_and_shown(server: Server, tmp_path: Path) -> None:
    french, english = '["Qui ferme la vanne à la main ?"]', '["Who closes the valve?"]'
    server.answer = lambda text: french if "part 0" in text else english
    languages = LanguageId(min_words=8, min_confidence=0.8)
    made = source(read(server, manual(2)), words={"query": [1, 40], "document": [1, 400]})
    (tmp_path / "curated").mkdir()
    rules = read_recipe(TINY).curate.model_copy(update={"sources": (made.section,), "language_id": languages})
    found = curate_sources(rules, [made], tmp_path / "curated", tmp_path / "working")
    assert found.rejected == {"wiki": {"query: in fr, not en": 1}}
    parts = {key: [] for key in ("suites", "splits", "overlaps", "profiles", "drift")}
    page = render_validation({"created": "now", "success": True, "rejected": found.examples, **parts})
    assert "in fr, not en" in page
    assert "Qui ferme la vanne" in page


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"question": "Write questions."}, "options: expected a prompt as option question, keywords or statement"),
        ({"parallel": 0.5, "colour": "red"}, "options: parallel: .*; colour: "),
        ({"url": "http://me:secret@host/v1"}, "options: url: "),
    ],
)
def test_wrong_options_are_named(server: Server, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        read(server, manual(1), **options)
    assert "secret" not in str(refused.value)
