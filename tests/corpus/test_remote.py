"""Sources behind URLs, on loopback: a web server, and a bucket of a moto server."""

import functools
import gzip
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.corpus.sources import read_records, source_files

ROWS = [{"q": f"question {number}", "d": f"answer {number}"} for number in range(30)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "rows.jsonl").write_bytes(LINES)
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(LINES))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    from pyarrow.fs import S3FileSystem

    files = S3FileSystem(endpoint_override=f"{host}:{port}", scheme="http", allow_bucket_creation=True)
    files.create_dir("texts")
    for name, data in {"part-1.jsonl": LINES, "part-2.jsonl.gz": gzip.compress(LINES), "notes.txt": b"-"}.items():
        with files.open_output_stream(f"texts/train/{name}", compression=None) as stream:
            stream.write(data)
    yield "s3://texts/train"
    server.stop()


def read(location: str) -> list[dict[str, Any]]:
    records = read_records("rows.pairs", source_files((location,), {}), {"query": "q", "document": "d"})
    return [{"q": row["query"], "d": row["document"]} for row in records if isinstance(row, dict)]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.parquet", "rows.jsonl?signature=1"])
def test_files_of_a_web_server_are_read(site: str, name: str) -> None:
    assert read(f"{site}/{name}") == ROWS


def test_what_is_out_of_reach_is_named_without_its_signature(site: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl: out of reach") as raised:
        read(f"{site}/none.jsonl?signature=hidden")
    assert "?signature" not in str(raised.value).partition("out of reach")[0]
    with pytest.raises(FileNotFoundError, match=r"rows\.jsonl: out of reach"):
        read("http://127.0.0.1:9/rows.jsonl")


def test_files_of_a_bucket_are_read(bucket: str) -> None:
    assert read(f"{bucket}/part-1.jsonl") == ROWS
    assert read(f"{bucket}/part-*") == [*ROWS, *ROWS]
    with pytest.raises(FileNotFoundError, match=r"no file matches 's3://texts/train/none-\*'"):
        read(f"{bucket}/none-*")
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl: out of reach"):
        read(f"{bucket}/none.jsonl")


def test_readers_of_local_files_say_so() -> None:
    with pytest.raises(ValueError, match=r"reader wikipedia\.leads reads local files, got https://x/y\.json"):
        read_records("wikipedia.leads", source_files(("https://x/y.json",), {}), {})
    with pytest.raises(ValueError, match=r"use a local path, s3:// or https://"):
        read("nowhere://bucket/rows-*.jsonl")
