"""Sources of a plan: curated rows or a given size, and the lengths of their texts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from stages.corpus.tables import SCHEMAS, SPLITS, write_table
from stages.modeling.tokenization import load_tokenizer
from stages.planning import sources
from stages.planning.sources import SourceTexts, TextLengths, read_sources
from stages.recipe.curate import Curate
from stages.recipe.recipe import read

TINY = Path(__file__).parents[1] / "recipes" / "tiny.yaml"
PROMPTS = {"query": "query : ", "document": ""}


@pytest.fixture
def simlex() -> Curate:
    """The tiny recipe's section with its scored source alone."""
    curate = read(TINY).curate
    return curate.model_copy(update={"sources": tuple(source for source in curate.sources if source.name == "simlex")})


def write_curated(folder: Path, rows: dict[str, int]) -> None:
    for split in SPLITS:
        table = [
            {"id": f"{split}/{row}", "text_a": f"{split} {row}", "text_b": "other", "score": 0.5, "source": "simlex"}
            | {"entity": "e", "language": "en", "license": "none"}
            for row in range(rows[split])
        ]
        write_table(folder / "data/curated/scored" / f"{split}.parquet", table, SCHEMAS["scored"])
    locked = {"seed": 17, "curate": {"sources": YAML(typ="safe").load(TINY)["curate"]["sources"]}}
    YAML().dump({"stages": {"curate": {"params": {"params.yaml": locked}}}}, folder / "dvc.lock")


def test_a_curated_source_is_read_unless_its_section_or_the_seed_changed(
    simlex: Curate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_curated(tmp_path, {"train": 5, "dev": 2, "test": 1})
    found = read_sources(simlex, 17, {}, None)["simlex"]
    assert found.rows == {"train": 5, "dev": 2, "test": 1}
    assert found.texts["text_a"][0] == "train 0" and len(found.texts["text_b"]) == 8
    changed = simlex.model_copy(update={"sources": (simlex.sources[0].model_copy(update={"max_rows": 50}),)})
    for section, seed in ((changed, 17), (simlex, 3)):
        with pytest.raises(ValueError, match=r"source simlex is not curated; run `dvc repro curate`, or give its size"):
            read_sources(section, seed, {}, None)
    assert read_sources(changed, 17, {}, 9)["simlex"].rows == {"train": 20, "dev": 5, "test": 25}, "max_rows"
    assert sum(read_sources(simlex, 17, {"simlex": 1000}, 9)["simlex"].rows.values()) == 1000, "given"
    with pytest.raises(ValueError, match=r"--rows: got \['gooaq'\], expected sources of the recipe"):
        read_sources(simlex, 17, {"gooaq": 5}, 9)


def test_explicit_negatives_of_train_pairs_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    curate, row = read(TINY).curate, {"query": "q", "document": "d", "source": "wikipedia", "id": "1"}
    (wikipedia,) = (source for source in curate.sources if source.name == "wikipedia")
    for split, negatives in (("train", ["a", "b"]), ("dev", []), ("test", [])):
        rows = [row | {"entity": "e", "language": "en", "license": "none", "negatives": negatives}]
        write_table(tmp_path / "data/curated/pairs" / f"{split}.parquet", rows, SCHEMAS["pairs"])
    locked = {"seed": 17, "curate": {"sources": YAML(typ="safe").load(TINY)["curate"]["sources"]}}
    YAML().dump({"stages": {"curate": {"params": {"params.yaml": locked}}}}, tmp_path / "dvc.lock")
    found = read_sources(curate.model_copy(update={"sources": (wikipedia,)}), 17, {}, None)["wikipedia"]
    assert found.texts["negatives"] == ["a", "b"]


@pytest.fixture
def lengths_of(backbones: dict[str, Path]) -> Callable[..., TextLengths]:
    def lengths_of(**found: SourceTexts) -> TextLengths:
        return TextLengths(found, lambda: load_tokenizer(str(backbones["bert"])), PROMPTS)

    return lengths_of


def source(train: int, texts: list[str], **others: Any) -> SourceTexts:
    return SourceTexts("pairs", {"train": train, "dev": 1, "test": 0}, {"query": texts, "document": texts}, **others)


def test_tokens_behind_a_prompt_up_to_the_cut(lengths_of: Callable[..., TextLengths]) -> None:
    """A syllable is a token, this prompt has two, and BERT's tokenizer puts two around a text."""
    lengths = lengths_of(read=source(3, ["ba", "ba be bi", ""]), given=source(3, ["a", "b", "c"], tokens=80))
    assert lengths.whole("read", "query", "query").tolist() == [5, 7, 4]
    assert lengths.around("query") == 4
    assert lengths.whole("given", "query", "query").tolist() == [80, 80, 80]
    assert lengths_of(none=source(3, [])).whole("none", "query", "query").tolist() == [], "no explicit negatives"
    assert lengths.dev(["read", "given"], {"query": "query", "document": "document"}, 32).tolist() == [5, 3, 32, 32]


def test_training_rows_in_proportion_to_their_sources(
    lengths_of: Callable[..., TextLengths], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "SAMPLED_ROWS", 400)
    lengths = lengths_of(small=source(10, ["ba"]), large=source(30, ["ba be"]))
    rows = lengths.train(["small", "large"], {"query": "query", "document": "document"}, 32)
    found, counts = np.unique(rows, axis=0, return_counts=True)
    assert dict(zip(map(tuple, found.tolist()), counts.tolist(), strict=True)) == {(5, 3): 100, (6, 4): 300}
