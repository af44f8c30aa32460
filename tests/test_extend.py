"""The long-context phase with a tiny student: what a batch is, what is trained, what is handed on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML

from stages import extend
from stages.corpus.tables import SCHEMAS, SPLITS, read_split, write_table
from stages.modeling.encoder import EncoderSettings, load_encoder, saved_encoder
from stages.modeling.projection import read_projection, write_projection
from stages.recipe.paths import CURATED, DISTILLED, EMBEDDED, EXTENDED
from stages.recipe.recipe import Recipe, read
from stages.teachers.teacher import ReadingRule
from stages.teachers.vector_store import VectorStore
from stages.tracking.runs import SilentRun
from stages.training.curves import read_curve
from tests.conftest import cut_at

TEACHER = 40
PROMPTS = {"query": "query : ", "document": "document : "}


@pytest.fixture
def project(
    short_recipe: dict[str, Any],
    backbones: dict[str, Path],
    sentences: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, Any]:
    """Curated pairs of a short and a long source, a teacher's vectors and a distilled student; gives the recipe."""
    monkeypatch.chdir(tmp_path)
    recipe = short_recipe
    long = [" ".join(sentences[at : at + 3]) for at in range(100, 160)]
    origin = {"entity": "e", "language": "en", "license": "MIT"}
    rows = [
        {"id": f"{source}/{at}", **origin, "source": source, "query": queries[at], "document": documents[at]}
        for source, queries, documents in (
            ("wikipedia", sentences[:60], sentences[100:160]),
            ("docstrings", sentences[40:100], long),
        )
        for at in range(60)
    ]
    topics = [
        {"id": f"wikipedia-topics/{at}", **origin, "source": "wikipedia-topics", "text": sentences[at], "label": "one"}
        for at in range(30)
    ]
    for place, split in enumerate(SPLITS):
        for kind, schema in SCHEMAS.items():
            of_kind = {"pairs": rows, "labelled": topics}.get(kind, [])
            write_table(CURATED / kind / f"{split}.parquet", of_kind[place::3], schema)
    store = VectorStore(Path("data/embedded"), {"teacher": "none"})
    generator = np.random.default_rng(0)
    for texts, reading in ((sentences, ReadingRule("", 24, 24)), (long, ReadingRule("", 64, 16))):
        store.add(store.keys(reading, texts), generator.normal(size=(len(texts), TEACHER)))
    student = load_encoder(str(backbones["eurobert"]), EncoderSettings("last", PROMPTS, 24, 10_000.0))
    student.save(Path("data/distilled/student"))
    torch.manual_seed(0)
    write_projection(torch.nn.Linear(student.dimensions, TEACHER), Path("data/distilled/projection.safetensors"))
    cut_at(recipe, 24)
    recipe["embed"]["prompts"] = dict.fromkeys(("query", "document", "clustering"), "")
    recipe["embed"]["long"] = {"sources": ["docstrings"], "max_tokens": 64, "window_tokens": 16}
    recipe["engine"]["threads"] = 1
    recipe["distill"] |= {"matryoshka_dims": [8, 32], "freeze_token_embeddings": True}
    recipe["extend"] |= {
        "mixture": [
            {"source": "wikipedia", "weight": 1.0, "max_tokens": 12, "batch_size": 5},
            {"source": "docstrings", "weight": 2.0, "max_tokens": 48, "batch_size": 3},
        ],
        "max_truncated_share": 0.7,
        "rope_theta": 500.0,
    }
    recipe["extend"]["training"] |= {"steps": 6, "evaluate_every": 6, "checkpoint_every": 3, "learning_rate": 0.01}
    return recipe


def checked(recipe: dict[str, Any]) -> Recipe:
    """The recipe, read back from params.yaml."""
    YAML(typ="safe").dump(recipe, Path("params.yaml"))
    return read()


def run(recipe: Recipe) -> None:
    extend.extend(recipe, "key", SilentRun())


def test_student_and_projection_learn_on_and_carry_the_phases_theta_and_length(project: dict[str, Any]) -> None:
    run(checked(project))
    before, after = (saved_encoder(folder / "student", None) for folder in (DISTILLED, EXTENDED))
    assert (after.settings.rope_theta, after.settings.max_tokens) == (500.0, 48)
    assert after.backbone.config.rope_parameters["rope_theta"] == 500.0
    changed = {
        name
        for (name, one), other in zip(before.named_parameters(), after.parameters(), strict=True)
        if not torch.equal(one, other)
    }
    assert any("layers.0" in name for name in changed)
    assert not any("embed_tokens" in name for name in changed)  # frozen, as in distill
    psi = [read_projection(folder / "projection.safetensors").weight for folder in (DISTILLED, EXTENDED)]
    assert psi[0].shape == psi[1].shape == (TEACHER, 32)
    assert not torch.equal(*psi)
    curve = read_curve(EXTENDED / "curve.csv")
    assert [row["step"] for row in curve] == [1, 2, 3, 4, 5, 6]
    assert 0 <= curve[-1]["dev_ndcg_at_10"] <= 1


def test_length_and_batch_size_change_with_the_source_drawn(project: dict[str, Any]) -> None:
    recipe = checked(project)
    encoder = saved_encoder(DISTILLED / "student", None)
    data, epoch_batches, ids = extend.training_data(recipe, encoder)
    assert len(data.tokens) == len(ids)
    drawn: dict[str, set[int]] = {}
    longest: dict[str, int] = {}
    for epoch in range(3):
        for rows in epoch_batches(epoch):
            queries, documents = np.split(rows, 2)
            both_sides = [[ids[row].rpartition(" ")[0] for row in side] for side in (queries, documents)]
            assert both_sides[0] == both_sides[1], "of the same pairs"
            (source,) = {ids[row].partition("/")[0] for row in rows}
            assert {ids[row].rpartition(" ")[2] for row in documents} == {"(document)"}
            drawn.setdefault(source, set()).add(len(queries))
            longest[source] = max(longest.get(source, 0), int(data[rows].lengths.max()))
    assert drawn == {"wikipedia": {5}, "docstrings": {3}}
    assert longest["wikipedia"] == 12
    assert 24 < longest["docstrings"] <= 48


def test_a_source_of_single_texts_is_drawn_beside_pairs(project: dict[str, Any]) -> None:
    draw = {"source": "wikipedia-topics", "weight": 1.0, "max_tokens": 12, "batch_size": 4}
    project["extend"]["mixture"].append(draw)
    recipe = checked(project)
    data, epoch_batches, ids = extend.training_data(recipe, saved_encoder(DISTILLED / "student", None))
    assert len(data.tokens) == len(ids)
    drawn: dict[str, set[int]] = {}
    for batch in (batch for epoch in range(3) for batch in epoch_batches(epoch)):
        (source,) = {ids[row].partition("/")[0] for row in batch}
        drawn.setdefault(source, set()).add(len(batch))
    assert drawn == {"wikipedia": {10}, "docstrings": {6}, "wikipedia-topics": {4}}


def test_a_long_document_is_distilled_from_its_windows(project: dict[str, Any]) -> None:
    recipe = checked(project)
    data, _, ids = extend.training_data(recipe, saved_encoder(DISTILLED / "student", None))
    store = VectorStore(EMBEDDED)
    assert data.teacher is not None
    for source, reading in (("wikipedia", ReadingRule("", 24, 24)), ("docstrings", ReadingRule("", 64, 16))):
        first = read_split(CURATED, "pairs", "train", [source]).to_pylist()[0]
        place = ids.index(f"{first['id']} (document)")
        np.testing.assert_array_equal(data.teacher[[place]].numpy(), store.vectors_of(reading, [first["document"]]))


def test_too_many_cut_texts_are_refused(project: dict[str, Any]) -> None:
    project["extend"]["max_truncated_share"] = 0.01
    with pytest.raises(ValueError, match=r"extend\.mixture wikipedia: .*% of \d+ texts are cut at max_tokens 12"):
        run(checked(project))
    assert not EXTENDED.exists()


def test_without_steps_the_student_is_handed_on_as_it_is(project: dict[str, Any]) -> None:
    (EXTENDED / "student").mkdir(parents=True)
    (EXTENDED / "student/stale.txt").write_text("of an earlier run")
    extend.hand_on(DISTILLED, EXTENDED)
    passed = {path.relative_to(EXTENDED): path for path in EXTENDED.rglob("*") if path.is_file()}
    assert read_curve(passed.pop(Path("curve.csv"))) == []
    assert passed.keys() == {path.relative_to(DISTILLED) for path in DISTILLED.rglob("*") if path.is_file()}
    for name, path in passed.items():
        assert path.read_bytes() == (DISTILLED / name).read_bytes()
