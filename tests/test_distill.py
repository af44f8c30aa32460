"""Stage 1 by every objective and projection of the recipe, with a tiny student and made-up teacher vectors."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from torch.nn.functional import cosine_similarity

from stages import distill
from stages.corpus.tables import SCHEMAS, SPLITS, read_split, write_table
from stages.modeling.encoder import saved_encoder
from stages.modeling.projection import read_projection
from stages.objectives.stage1 import stage1_objective
from stages.recipe.paths import CURATED, DISTILLED, EMBEDDED
from stages.recipe.recipe import Recipe, read
from stages.teachers.teacher import ReadingRule
from stages.teachers.vector_store import VectorStore
from stages.tracking.runs import SilentRun
from stages.training.curves import read_curve
from stages.training.stage1_texts import stage1_columns
from tests.conftest import cut_at

TEACHER = 40
SOURCES = ("wikipedia", "docstrings")
PAIRS = {"training.batch_tokens": None, "training.batch_size": 6}
VARIANTS: dict[str, dict[str, Any]] = {
    "student side": {},
    "student side, frozen": {"projection.trained": False},
    "teacher side": {"projection.side": "teacher"},
    "teacher side, frozen": {"projection": {"side": "teacher", "trained": False}},
    "scores": {"objective": "score_distillation", **PAIRS},
    "contrast": {"objective": "info_nce", **PAIRS},
}


def checked(recipe: dict[str, Any], changes: dict[str, Any]) -> Recipe:
    """The recipe with values of its section distill changed, read back from params.yaml."""
    for key, value in changes.items():
        *parents, last = key.split(".")
        section = recipe["distill"]
        for parent in parents:
            section = section[parent]
        section[last] = value
    YAML(typ="safe").dump(recipe, Path("params.yaml"))
    return read()


@pytest.fixture
def project(
    short_recipe: dict[str, Any],
    backbones: dict[str, Path],
    sentences: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, Any]:
    """The working folder of a stage: curated pairs and a teacher's vectors; gives the recipe to change."""
    recipe = short_recipe
    monkeypatch.chdir(tmp_path)
    origin = {"entity": "e", "language": "en", "license": "MIT"}
    rows = [
        {"id": str(at), **origin, "source": SOURCES[at % 2], "query": sentences[at], "document": sentences[100 + at]}
        for at in range(100)
    ]
    for place, split in enumerate(SPLITS):
        chosen = [row for at, row in enumerate(rows) if (at // 2) % len(SPLITS) == place]
        for kind, schema in SCHEMAS.items():
            write_table(CURATED / kind / f"{split}.parquet", chosen if kind == "pairs" else [], schema)
    store = VectorStore(Path("data/embedded"), {"teacher": "none"})
    vectors = np.random.default_rng(0).normal(size=(200, TEACHER))
    store.add(store.keys(ReadingRule("", 24, 24), sentences), vectors)
    cut_at(recipe, 24)
    recipe["embed"]["prompts"] = dict.fromkeys(("query", "document", "clustering"), "")
    recipe["engine"]["threads"] = 1
    backbone = dict.fromkeys(recipe["distill"]["backbone"]) | {"architecture": "pretrained", "layers": [0]}
    recipe["distill"] |= {"backbone": backbone | {"path": str(backbones["eurobert"])}, "sources": list(SOURCES)}
    recipe["distill"] |= {"matryoshka_dims": [8, 32], "continued_steps": 2}
    recipe["distill"]["training"] |= {"steps": 4, "batch_tokens": 200, "learning_rate": 0.01}
    return recipe


def run(recipe: Recipe) -> None:
    distill.distill(recipe, "key", SilentRun())


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_every_variant_leaves_what_stage_2_reads(project: dict[str, Any], changes: dict[str, Any]) -> None:
    recipe = checked(project, changes)
    run(recipe)
    curve = read_curve(DISTILLED / "curve.csv")
    assert [row["step"] for row in curve] == [1, 2, 3, 4]
    assert "dev_ndcg_at_10" in curve[-1]
    term = {"embedding_distillation": "distillation"}.get(recipe.distill.objective, recipe.distill.objective)
    assert term in curve[0]
    psi = read_projection(DISTILLED / "projection.safetensors")
    assert psi.weight.shape == (TEACHER, 32)
    assert (DISTILLED / "static.safetensors").is_file()
    weights = [
        torch.cat([value.flatten() for value in saved_encoder(DISTILLED / name, None).parameters()])
        for name in ("student", "continued")
    ]
    assert not torch.equal(*weights)


@pytest.mark.parametrize("name", ["student side", "contrast"])
def test_the_projection_fits_the_student_it_stands_beside(project: dict[str, Any], name: str) -> None:
    """Nearer to the teacher's vectors than the same projection behind the texts of other rows."""
    run(checked(project, VARIANTS[name]))
    psi = read_projection(DISTILLED / "projection.safetensors")
    student = saved_encoder(DISTILLED / "student", None)
    texts = read_split(CURATED, "pairs", "train", SOURCES)["query"].to_pylist()
    teacher = torch.from_numpy(VectorStore(EMBEDDED).vectors_of(ReadingRule("", 24, 24), texts)).float()
    with torch.no_grad():
        projected = psi(torch.from_numpy(student.encode(texts, "query")))
    right = cosine_similarity(projected, teacher).mean()
    assert right > cosine_similarity(projected, teacher.roll(1, 0)).mean() + 0.1


@pytest.mark.slow
def test_a_frozen_projection_is_the_closed_form_start(project: dict[str, Any]) -> None:
    """The same whatever the number of steps; a trained one is not."""
    states = {}
    for trained in (False, True):
        for steps in (1, 3):
            changes = {"projection.trained": trained, "training.steps": steps}
            run(checked(project, changes))
            states[trained, steps] = read_projection(DISTILLED / "projection.safetensors").weight
    assert torch.equal(states[False, 1], states[False, 3])
    assert not torch.equal(states[True, 1], states[True, 3])


def test_batches_hold_texts_or_pairs_of_one_source(project: dict[str, Any]) -> None:
    pairs, columns = read_split(CURATED, "pairs", "train", SOURCES), stage1_columns(CURATED, SOURCES)
    lengths = np.full(2 * len(pairs), 5)

    def batches_of(changes: dict[str, Any]) -> Any:
        return distill.batches_of(checked(project, changes).distill, columns, lengths, processes=1)

    texts, names = batches_of({**PAIRS, "training.batch_size": 4})
    assert len(names) == 2 * len(pairs)
    assert {len(batch) for batch in texts(0, 0)} == {4}
    assert max(batch.max() for batch in texts(0, 0)) >= len(pairs), "documents too"
    rows, names = batches_of(VARIANTS["contrast"])
    assert names == pairs["id"].to_pylist()
    sources = pairs["source"].to_pylist()
    assert {len(batch) for batch in rows(0, 0)} == {6}
    assert all(len({sources[row] for row in batch}) == 1 for batch in rows(0, 0))
    assert {sources[batch[0]] for epoch in range(3) for batch in rows(0, epoch)} == set(SOURCES)
    for variant, named in ((VARIANTS["contrast"], SOURCES[0]), (PAIRS, ", ".join(SOURCES))):
        too_large = {"objective": "embedding_distillation", **variant, "training.batch_size": 999}
        with pytest.warns(UserWarning, match=rf"distill\.sources {named}: got \d+ rows, fewer than the 999"):
            batches_of(too_large)[0](0, 0)


def test_texts_of_every_kind_are_distilled_and_translations_aim_at_their_texts_vector(
    project: dict[str, Any], sentences: list[str]
) -> None:
    origin = {"entity": "e", "language": "en", "license": "MIT"}
    texts = {
        "scored": {"text_a": sentences[0], "text_b": sentences[1], "score": 0.5},
        "labelled": {"text": sentences[2], "label": "one"},
        "documents": {"text": sentences[3]},
        "parallel": {"text": sentences[4], "translation": "une phrase"},
    }
    for kind, row in texts.items():
        rows = [{"id": kind, **origin, "source": kind, **row}]
        write_table(CURATED / kind / "train.parquet", rows, SCHEMAS[kind])
    recipe = checked(project, {})
    columns = stage1_columns(CURATED, [*texts])
    encoder, _, data = distill.untrained_student(recipe, columns)
    names = [name for column in columns for name in column.text_ids]
    assert names == [
        "scored (text_a)", "scored (text_b)", "labelled (text)", "documents (text)",
        *["parallel (text)", "parallel (translation)"] * 2,
    ]  # fmt: skip
    store = VectorStore(EMBEDDED)
    aims = [sentences[at] for at in (0, 1, 2, 3, 4, 4, 4, 4)]
    assert data.teacher is not None
    np.testing.assert_array_equal(data.teacher.numpy(), store.vectors_of(ReadingRule("", 24, 24), aims))
    assert [column.read_as.side for column in columns[-4:]] == ["query", "query", "document", "document"]
    query, document = (encoder.tokenize(["une phrase"], side)[0].tolist() for side in ("query", "document"))
    assert [data[[row]][0].tolist() for row in (5, 7)] == [query, document]


def test_a_student_is_distilled_from_documents_alone(project: dict[str, Any], sentences: list[str]) -> None:
    origin = {"entity": "e", "language": "en", "license": "MIT"}
    rows = [{"id": str(at), **origin, "source": "manual", "text": text} for at, text in enumerate(sentences)]
    write_table(CURATED / "documents" / "train.parquet", rows, SCHEMAS["documents"])
    manual = project["curate"]["sources"][0] | {"name": "manual", "kind": "documents", "words": {"text": [1, 99]}}
    project["curate"]["sources"].append({key: value for key, value in manual.items() if key != "tokens"})
    run(checked(project, {"sources": ["manual"]}))
    curve = read_curve(DISTILLED / "curve.csv")
    assert curve[-1]["distillation"] < curve[0]["distillation"]
    assert "dev_ndcg_at_10" not in curve[-1], "no pairs are held out"


def test_a_teacher_smaller_than_its_student_is_not_projected_down(project: dict[str, Any]) -> None:
    recipe = checked(project, VARIANTS["teacher side"])
    encoder, _, data = distill.untrained_student(recipe, stage1_columns(CURATED, SOURCES))
    start = np.zeros((3, 16)), np.zeros((3, 32))
    with pytest.raises(ValueError, match="projects 16 dimensions down, the student has 32; use side: student"):
        stage1_objective(recipe.distill, encoder, torch.nn.Linear(32, 16), data, start)


def test_a_teacher_side_projection_starts_as_a_rotation_towards_the_student(project: dict[str, Any]) -> None:
    recipe = checked(project, VARIANTS["teacher side"])
    encoder, _, data = distill.untrained_student(recipe, stage1_columns(CURATED, SOURCES))
    teacher, student = data.targets(range(60), torch.device("cpu")).numpy(), distill.embed(encoder, data[range(60)])
    objective: Any = stage1_objective(recipe.distill, encoder, torch.nn.Linear(32, TEACHER), data, (teacher, student))
    with torch.no_grad():
        weight = objective.projection.weight
        torch.testing.assert_close(weight @ weight.T, torch.eye(32), atol=1e-5, rtol=0)
        near = cosine_similarity(objective.projection(torch.from_numpy(teacher)), torch.from_numpy(student)).mean()
        other = cosine_similarity(torch.from_numpy(teacher[:, :32]), torch.from_numpy(student)).mean()
    assert near > other + 0.1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"objective": "info_nce"}, "training.batch_size: objective info_nce compares the pairs"),
        (
            {**VARIANTS["scores"], "projection.trained": False},
            "projection: objective score_distillation trains without one",
        ),
        ({"training.batch_size": 8}, "give either batch_tokens or batch_size"),
        (
            {**VARIANTS["contrast"], "sources": ["simlex"]},
            r"distill.sources: expected sources of kind pairs .*'simlex'",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused_with_the_recipe(
    project: dict[str, Any], changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        checked(project, changes)


def test_too_many_cut_texts_are_refused(project: dict[str, Any]) -> None:
    recipe = checked(project, {"max_tokens": 8, "max_truncated_share": 0.1})
    with pytest.raises(ValueError, match=r"distill: .* are cut at max_tokens 8"):
        run(recipe)
    assert not DISTILLED.exists()
