"""The sensor of new data: what counts as another version of the sources, and the rebuild that it starts."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.source_sensor import source_digest, watch_sources
from tests.flows.conftest import made


class Versioned(BaseHTTPRequestHandler):
    """A web server whose one file has a version, and another that may not be read."""

    version = "1"

    def do_HEAD(self) -> None:
        self.send_response(httpx.codes.FORBIDDEN if self.path.startswith("/private") else httpx.codes.OK)
        self.send_header("ETag", self.version)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def web() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Versioned)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def recipe(*files: str) -> dict[str, Any]:
    return {"curate": {"sources": [{"name": "faq", "files": list(files)}]}}


def test_another_file_content_or_web_version_is_another_digest(
    tmp_path: Path, web: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data/sources").mkdir(parents=True)
    seen = [source_digest(tmp_path, recipe(f"{web}/rows.csv"))]
    (tmp_path / "data/sources/a.csv").write_text("a")
    seen.append(source_digest(tmp_path, recipe(f"{web}/rows.csv")))
    (tmp_path / "data/sources/a.csv").write_text("b")
    seen.append(source_digest(tmp_path, recipe(f"{web}/rows.csv")))
    monkeypatch.setattr(Versioned, "version", "2")
    seen.append(source_digest(tmp_path, recipe(f"{web}/rows.csv")))
    assert len(set(seen)) == 4
    assert source_digest(tmp_path, recipe(f"{web}/rows.csv")) == seen[-1]


def test_a_web_source_that_is_refused_is_named_without_its_signature(tmp_path: Path, web: str) -> None:
    with pytest.raises(RuntimeError, match=r"private/rows\.csv cannot be read: .*403") as failed:
        source_digest(tmp_path, recipe(f"{web}/private/rows.csv?signature=abc"))
    assert "abc" not in str(failed.value)


@pytest.mark.slow
def test_a_changed_source_starts_one_rebuild(api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data/sources").mkdir(parents=True)
    Path("params.yaml").write_text("curate: {sources: []}\n")
    flow = made(f"{api}/flows/", {"name": "rebuild"})["id"]
    deployment = made(f"{api}/deployments/", {"name": "watched", "flow_id": flow})["id"]

    def started() -> list[dict[str, Any]]:
        body = {"deployments": {"id": {"any_": [deployment]}}}
        found: list[dict[str, Any]] = httpx.post(f"{api}/flow_runs/filter", json=body).json()
        return found

    def look() -> str:
        message: str = watch_sources("rebuild/watched", return_state=True).message
        return message

    with temporary_settings({PREFECT_API_URL: api}):
        assert look().startswith("First look")
        assert look() == "No new data"
        assert started() == []
        Path("data/sources/new.csv").write_text("a,b\n")
        assert look().startswith("New data: started rebuild/watched as ")
        assert look() == "No new data"
        (run,) = started()
        assert run["parameters"] == {"refresh": True}
        for number, text in enumerate(("c,d\n", "a,b\n"), 2):  # and back to what it was
            Path("data/sources/new.csv").write_text(text)
            assert look().startswith("New data: started rebuild/watched as ")
            assert len(started()) == number
