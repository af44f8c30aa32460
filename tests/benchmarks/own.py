"""From a person's own files to a registered model: `stillhouse new FILE` and `dvc repro`, with nothing edited.

The table has operations of web services, in columns of other names than the project's; the folder has documentation of
classes as reStructuredText. No recipe that `new` writes trains on either.
"""

import ast
import csv
import json
import subprocess
import sys
import tempfile
import time
from importlib.metadata import files
from itertools import islice
from pathlib import Path

from stages.corpus.packaged.botocore import operations
from tests.benchmarks.measure import Figure
from tests.checkouts import checkout, environment

SERVICES, OPERATIONS, DOCUMENTS = 10, 25, 100
PACKAGES = ("scikit-learn", "pandas", "matplotlib")
MIN_WORDS = 150  # of a class's documentation that becomes a document


def own_figures() -> dict[str, Figure]:
    """Build from a table of 250 questions and answers, and from a folder of 100 documents."""
    with tempfile.TemporaryDirectory(prefix="stillhouse-own-") as name:
        folder = Path(name)
        table = write_table(folder / "tickets.csv")
        documents = write_documents(folder / "manual")
        return _build("own_csv", table, folder / "csv", 300) | _build("own_folder", documents, folder / "folder", 360)


def write_table(file: Path) -> Path:
    """Write a file with semicolons whose columns are a ticket's title, its resolution and its queue."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter=";")
        writer.writerow(("Ticket Title", "Resolution", "Queue"))
        written = 0
        for path in _services():
            pairs = [row for row in operations([path]) if len(row["document"].split()) >= 15]
            if len(pairs) < OPERATIONS or written == SERVICES:
                continue
            written += 1
            for row in islice(pairs, OPERATIONS):
                writer.writerow((row["query"], row["document"], row["entity"]))
    return file


def write_documents(folder: Path) -> Path:
    """Write the documentation of classes as reStructuredText, a class a file."""
    folder.mkdir()
    found: dict[str, str] = {}
    for path in (Path(str(entry.locate())) for package in PACKAGES for entry in files(package) or ()):
        if path.suffix != ".py" or "tests" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            text = ast.get_docstring(node) if isinstance(node, ast.ClassDef) else None
            if text and len(text.split()) >= MIN_WORDS:
                found.setdefault(node.name, text)
    for name in sorted(found)[:DOCUMENTS]:
        (folder / f"{name}.rst").write_text(f"{name}\n{'=' * len(name)}\n\n{found[name]}\n", encoding="utf-8")
    return folder


def _services() -> list[Path]:
    """List the newest description of each service, by name."""
    paths = [Path(str(entry.locate())) for entry in files("botocore") or () if entry.name == "service-2.json.gz"]
    newest = {path.parent.parent.name: path for path in sorted(paths)}
    return [newest[name] for name in sorted(newest)]


def _build(name: str, data: Path, folder: Path, limit: int) -> dict[str, Figure]:
    checkout(folder)
    started = time.perf_counter()
    for command in (("stillhouse", "new", str(data)), (sys.executable, "-m", "dvc", "repro")):
        subprocess.run(command, cwd=folder, env=environment(), check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    summary = json.loads((folder / "data/evaluated/figures.json").read_text(encoding="utf-8"))["summary"]
    quality = {key: Figure(value, "") for key, value in summary.items() if key.startswith("retrieval_")}
    return {f"{name}_seconds": Figure(seconds, "s", target=f"<= {limit}")} | {
        f"{name}_{key}": figure for key, figure in quality.items()
    }
