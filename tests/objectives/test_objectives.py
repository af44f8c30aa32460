"""The objectives on a tiny encoder: what learns, what is left out, and the values their terms must have."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stages.losses.contrastive import info_nce
from stages.losses.distillation import embedding_distillation, relational_distillation
from stages.losses.ranking import cosent
from stages.losses.regularization import spread_out
from stages.modeling.adapters import add_adapter, without_adapter
from stages.modeling.encoder import Encoder, EncoderSettings, load_encoder
from stages.objectives.classification import ClassificationObjective
from stages.objectives.distillation import DistillationObjective
from stages.objectives.objective import Objective
from stages.objectives.retrieval import TEMPERATURE_BOUNDS, RetrievalObjective, Temperature, negative_rows
from stages.objectives.text_matching import TextMatchingObjective
from stages.objectives.training_texts import TrainingTexts
from stages.training.batches import mixed_batches, shuffled_batches
from tests import sections

DIMS = (8, 32)
TEACHER = 12
PROMPTS = {"query": "query : ", "document": ""}
ROWS = np.array([3, 0, 2, 1])

Side = Callable[[str], TrainingTexts]


@pytest.fixture
def student(backbones: dict[str, Path]) -> Encoder:
    return load_encoder(str(backbones["eurobert"]), EncoderSettings("last", PROMPTS, 24))


@pytest.fixture
def adapted(student: Encoder) -> Encoder:
    """With an adapter whose delta is not zero, so that it differs from its base."""
    torch.manual_seed(0)
    add_adapter(student, "task", 4, 4)
    with torch.no_grad():
        for name, value in student.named_parameters():
            if "lora_B" in name:
                value.normal_(std=0.2)
    return student


def side(encoder: Encoder, texts: Sequence[str], name: str, seed: int = 0) -> TrainingTexts:
    teacher = np.random.default_rng(seed).normal(size=(len(texts), TEACHER)).astype(np.float16)
    return TrainingTexts.of(encoder, texts, name, 24, teacher)


def projection() -> nn.Linear:
    torch.manual_seed(4)
    return nn.Linear(32, TEACHER)


def learning(objective: nn.Module, terms: dict[str, Tensor]) -> set[str]:
    """Names of the parameters that a gradient reaches; none has one that is not wanted."""
    torch.stack(list(terms.values())).sum().backward()
    reached = {name for name, value in objective.named_parameters() if value.grad is not None and value.grad.any()}
    for name, value in objective.named_parameters():
        assert value.requires_grad or value.grad is None, name
    return reached


def adapter_parts(objective: nn.Module) -> set[str]:
    return {name for name, _ in objective.named_parameters() if "lora_" in name}


def embed(encoder: Encoder, texts: TrainingTexts, rows: np.ndarray) -> Tensor:
    embeddings: Tensor = encoder(**encoder.pad(texts[rows]))
    return embeddings


def loss(objective: Objective, rows: np.ndarray) -> dict[str, Tensor]:
    """The terms of some rows, as the loop gets them when a batch is a single micro-batch."""
    batch = objective.encoder.pad(objective.texts(rows))
    base = None
    if objective.needs_base:
        with torch.no_grad(), without_adapter(objective.encoder):
            base = objective.encoder(**batch)
    terms: dict[str, Tensor] = objective(rows, objective.encoder(**batch), base)
    return terms


def projected(embeddings: Tensor, teacher: Tensor, psi: nn.Linear) -> Tensor:
    """Mean over prefixes of the distance to the teacher, written out."""
    return torch.stack(
        [
            embedding_distillation(embeddings[:, :dim] @ psi.weight[:, :dim].T + psi.bias, teacher.float())
            for dim in DIMS
        ]
    ).mean()


# Texts


def test_texts_carry_the_sides_prompt_and_their_own_targets(student: Encoder, sentences: list[str]) -> None:
    data = side(student, sentences[:10], "query")
    expected = torch.from_numpy(student.eval().encode([sentences[row] for row in ROWS], "query"))
    torch.testing.assert_close(embed(student, data, ROWS).detach(), expected, atol=1e-6, rtol=0)
    assert data.teacher is not None
    assert torch.equal(data.targets(ROWS, torch.device("cpu")), data.teacher[ROWS.tolist()].float())
    assert data.lengths.tolist() == [len(ids) for ids in data.tokens]
    with pytest.raises(AssertionError, match="carry no teacher vectors"):
        TrainingTexts.of(student, sentences[:2], "query", 24).targets([0], torch.device("cpu"))


# Stage 1


def test_distillation_teaches_the_student_and_its_projection(student: Encoder, sentences: list[str]) -> None:
    data, psi = side(student, sentences[:10], "query"), projection()
    objective = DistillationObjective(student, psi, DIMS, data)
    terms = loss(objective, ROWS)
    assert data.teacher is not None
    expected = projected(embed(student, data, ROWS), data.teacher[ROWS], psi)
    torch.testing.assert_close(terms["distillation"], expected)
    reached = learning(objective, terms)
    assert {"projection.weight", "projection.bias"} <= reached
    assert {name for name, value in objective.named_parameters() if value.requires_grad} == reached
    assert "encoder.backbone.embed_tokens.weight" in reached


def test_distillation_leaves_frozen_token_embeddings_and_projection_alone(
    student: Encoder, sentences: list[str]
) -> None:
    student.backbone.get_input_embeddings().requires_grad_(False)
    objective = DistillationObjective(
        student, projection().requires_grad_(False), DIMS, side(student, sentences[:10], "query")
    )
    reached = learning(objective, loss(objective, ROWS))
    assert "encoder.backbone.embed_tokens.weight" not in reached
    assert not [name for name in reached if name.startswith("projection")]
    assert "encoder.backbone.layers.0.self_attn.q_proj.weight" in reached


# Retrieval


@pytest.fixture
def retrieval(adapted: Encoder, sentences: list[str]) -> RetrievalObjective:
    queries, documents = side(adapted, sentences[:12], "query", 1), side(adapted, sentences[20:32], "document", 2)
    negatives = np.stack([(np.arange(12) + 5) % 12, (np.arange(12) + 7) % 12], axis=1)
    return RetrievalObjective(adapted, projection(), DIMS, sections.retrieval(), (queries, documents), negatives)


def test_retrieval_leaves_out_what_the_teacher_finds_as_near_as_the_positive(retrieval: RetrievalObjective) -> None:
    embeddings = F.normalize(torch.randn(4 * 4, 32, generator=torch.Generator().manual_seed(1)), dim=-1)
    plain = retrieval(ROWS, embeddings)
    retrieval.false_negative_margin = 0.1
    masked = retrieval(ROWS, embeddings)
    hard = retrieval.negatives[ROWS]
    queries = torch.as_tensor(retrieval.queries.teacher[ROWS]).float()
    documents = torch.as_tensor(retrieval.documents.teacher[np.concatenate([ROWS, hard.ravel()])]).float()
    cosines = F.normalize(queries, dim=-1) @ F.normalize(documents, dim=-1).T
    excluded = cosines > 0.9 * cosines.diagonal()[:, None]
    excluded.fill_diagonal_(False)
    assert 0 < excluded.sum() < excluded.numel() - 4
    sides = embeddings.split([4, 4, 8])
    expected = sum(
        info_nce(*(side[:, :dim] for side in sides[:2]), sides[2].view(4, 2, 32)[..., :dim], 0.05, excluded)
        for dim in DIMS
    )
    assert masked["info_nce"].item() == pytest.approx(float(expected) / len(DIMS), rel=1e-5)
    assert masked["info_nce"] < plain["info_nce"]
    assert masked["distillation"] == plain["distillation"]


def test_retrieval_leaves_out_a_query_s_own_document_as_another_s_hard_negative(retrieval: RetrievalObjective) -> None:
    """Rows 0 and 5: document 5 is a hard negative of query 0, and what query 5 seeks."""
    rows = np.array([0, 5])
    assert retrieval.negatives[rows].tolist() == [[5, 7], [10, 0]]
    embeddings = F.normalize(torch.randn(2 * 4, 32, generator=torch.Generator().manual_seed(1)), dim=-1)
    excluded = torch.zeros(2, 2 + 4, dtype=torch.bool)
    excluded[1, 2 + 0] = excluded[0, 2 + 3] = True
    sides = embeddings.split([2, 2, 4])
    expected = [
        info_nce(*(one[:, :dim] for one in sides[:2]), sides[2].view(2, 2, 32)[..., :dim], 0.05, excluded)
        for dim in DIMS
    ]
    found = retrieval(rows, embeddings)["info_nce"]
    assert found.item() == pytest.approx(float(torch.stack(expected).mean()), rel=1e-5)


def test_retrieval_terms_are_those_of_the_paper(retrieval: RetrievalObjective) -> None:
    terms = loss(retrieval, ROWS)
    queries = embed(retrieval.encoder, retrieval.queries, ROWS)
    positives = embed(retrieval.encoder, retrieval.documents, ROWS)
    negatives = embed(retrieval.encoder, retrieval.documents, retrieval.negatives[ROWS].ravel()).view(4, 2, 32)
    nce = [info_nce(queries[:, :d], positives[:, :d], negatives[..., :d], 0.05) for d in DIMS]
    torch.testing.assert_close(terms["info_nce"], torch.stack(nce).mean(), rtol=1e-4, atol=1e-5)
    assert retrieval.queries.teacher is not None
    assert retrieval.documents.teacher is not None
    distilled = projected(queries, retrieval.queries.teacher[ROWS], retrieval.projection) + projected(
        positives, retrieval.documents.teacher[ROWS], retrieval.projection
    )
    torch.testing.assert_close(terms["distillation"], 2.0 * distilled, rtol=1e-4, atol=1e-5)
    spread = spread_out(queries) + spread_out(positives)
    torch.testing.assert_close(terms["spread_out"], 3.0 * spread, rtol=1e-4, atol=1e-5)
    assert set(terms) == {"info_nce", "distillation", "spread_out"}


def test_retrieval_teaches_the_adapter_and_the_temperature_alone(retrieval: RetrievalObjective) -> None:
    reached = learning(retrieval, loss(retrieval, ROWS))
    assert reached == adapter_parts(retrieval) | {"temperature.logarithm"}
    assert retrieval.queries.teacher is not None
    assert not retrieval.queries.teacher.requires_grad


def test_temperature_stays_within_its_bounds() -> None:
    assert Temperature(0.02)().item() == pytest.approx(0.02)
    least, most = TEMPERATURE_BOUNDS
    for start, expected in ((0.0001, least), (3.0, most)):
        temperature = Temperature(start)
        assert temperature().item() == pytest.approx(expected)
        temperature().backward()
        assert temperature.logarithm.grad == pytest.approx(expected), "at a bound it still learns"
    inside = Temperature(0.05)
    inside().backward()
    assert inside.logarithm.grad == pytest.approx(0.05)


# Text matching


@pytest.fixture
def matching(adapted: Encoder, sentences: list[str]) -> TextMatchingObjective:
    """Six scored pairs, then six without scores."""
    pairs = side(adapted, sentences[:12], "document", 1), side(adapted, sentences[20:32], "document", 2)
    scores = np.array([0.9, 0.1, 0.5, 0.3, 0.7, 0.2])
    return TextMatchingObjective(adapted, projection(), DIMS, sections.text_matching(), pairs, scores)


def test_scored_batches_are_ranked(matching: TextMatchingObjective) -> None:
    rows = np.array([4, 1, 2])
    terms = loss(matching, rows)
    assert set(terms) == {"cosent"}
    left, right = embed(matching.encoder, matching.left, rows), embed(matching.encoder, matching.right, rows)
    expected = [
        cosent(F.cosine_similarity(left[:, :d], right[:, :d]), torch.tensor([0.7, 0.1, 0.5]), 0.1) for d in DIMS
    ]
    torch.testing.assert_close(terms["cosent"], 1.5 * torch.stack(expected).mean(), rtol=1e-4, atol=1e-5)
    assert learning(matching, terms) == adapter_parts(matching)


def test_unscored_batches_are_contrasted_and_distilled(matching: TextMatchingObjective) -> None:
    rows = np.array([6, 11, 8])
    terms = loss(matching, rows)
    assert set(terms) == {"info_nce", "distillation"}
    left, right = embed(matching.encoder, matching.left, rows), embed(matching.encoder, matching.right, rows)
    nce = torch.stack([info_nce(left[:, :d], right[:, :d], None, 0.05) for d in DIMS]).mean()
    torch.testing.assert_close(terms["info_nce"], 2.5 * nce, rtol=1e-4, atol=1e-5)
    assert matching.left.teacher is not None
    assert matching.right.teacher is not None
    distilled = projected(left, matching.left.teacher[rows], matching.projection) + projected(
        right, matching.right.teacher[rows], matching.projection
    )
    torch.testing.assert_close(terms["distillation"], 3.5 * distilled, rtol=1e-4, atol=1e-5)
    assert learning(matching, terms) == adapter_parts(matching)


def test_batches_hold_pairs_of_one_kind(matching: TextMatchingObjective) -> None:
    """As the stage mixes them: each batch lies wholly below or wholly above the number of scores."""
    scored = shuffled_batches(matching.left.lengths[:6], 2, 0, 0, "scored")
    unscored = [rows + 6 for rows in shuffled_batches(matching.left.lengths[6:], 2, 0, 0, "pairs")]
    kinds = set()
    for rows in mixed_batches((scored, unscored), (0.5, 0.5), 0, 0):
        assert len({int(row) < 6 for row in rows}) == 1
        kinds.add(frozenset(loss(matching, rows)))
    assert kinds == {frozenset({"cosent"}), frozenset({"info_nce", "distillation"})}


def test_a_batch_of_both_kinds_is_refused(matching: TextMatchingObjective) -> None:
    for rows in ([0, 6], [6, 0]):
        with pytest.raises(AssertionError, match="one kind"):
            loss(matching, np.array(rows))


# Classification


def classifier(
    encoder: Encoder, sentences: list[str], labels: list[str], seed: int = 7, **changes: Any
) -> ClassificationObjective:
    texts = TrainingTexts.of(encoder, sentences[: len(labels)], "document", 24)
    return ClassificationObjective(encoder, DIMS, sections.classification(**changes), texts, labels, seed)


LABELS = [*"aaabbbcccddd"]


def test_draws_never_take_a_negative_of_the_same_label(adapted: Encoder, sentences: list[str]) -> None:
    objective = classifier(adapted, sentences, LABELS, num_negatives=4)
    seen = set()
    for start in range(8):
        rows = np.array([start, (start + 5) % 12, 3, 8])
        drawn = objective.draw(rows)
        assert drawn[:4].tolist() == rows.tolist()
        drawn = drawn[4:]
        assert len(drawn) == 4 + 4 * 4
        for place, row in enumerate(rows):
            positive, negatives = drawn[place], drawn[4 + 4 * place : 8 + 4 * place]
            assert LABELS[positive] == LABELS[row]
            assert positive != row
            assert len(set(negatives.tolist())) == 4
            assert LABELS[row] not in {LABELS[negative] for negative in negatives}
        seen.add(tuple(drawn.tolist()))
    assert len(seen) == 8


def test_draws_depend_on_seed_and_rows_alone(adapted: Encoder, sentences: list[str]) -> None:
    objective = classifier(adapted, sentences, LABELS)
    first = objective.draw(ROWS)
    np.random.default_rng(0).random()
    torch.manual_seed(1)
    objective.draw(np.array([1, 2]))
    np.testing.assert_array_equal(objective.draw(ROWS), first)
    assert (classifier(adapted, sentences, LABELS, seed=8).draw(ROWS) != first).any()


def test_a_label_of_one_row_or_a_single_label_is_refused(adapted: Encoder, sentences: list[str]) -> None:
    with pytest.raises(ValueError, match=r"labels of one row have no positive: \['b'\]"):
        classifier(adapted, sentences, [*"aabccc"])
    with pytest.raises(ValueError, match="got rows of one label, a, expected at least 2"):
        classifier(adapted, sentences, [*"aaa"], num_negatives=3)


def test_too_few_rows_of_other_labels_give_fewer_negatives_with_a_warning(
    adapted: Encoder, sentences: list[str]
) -> None:
    with pytest.warns(UserWarning, match="got 3, but only 2 rows are of other labels"):
        objective = classifier(adapted, sentences, [*"aaabb"], num_negatives=3)
    assert len(objective.draw(np.array([0, 3]))) == 2 + 2 + 2 * 2


def test_classification_terms_are_those_of_the_paper(adapted: Encoder, sentences: list[str]) -> None:
    """By a loop over anchors; in-batch texts of an anchor's own label count neither way."""
    objective = classifier(adapted, sentences, LABELS)
    rows = np.array([0, 1, 4])  # two anchors share a label
    terms = loss(objective, rows)
    drawn = objective.draw(rows)
    batch = adapted.pad(objective.data.tokens.select(drawn))
    embeddings = adapted(**batch)
    with torch.no_grad(), without_adapter(adapted):
        base = adapted(**batch)
    expected = 0.0
    for dim in DIMS:
        unit = F.normalize(embeddings[:, :dim], dim=-1)
        anchors, candidates = unit[:3], unit[3:]
        for i in range(3):
            allowed = [j for j in range(len(candidates)) if j == i or LABELS[drawn[3 + j]] != LABELS[rows[i]]]
            logits = (anchors[i] @ candidates[allowed].T) / 0.05
            expected -= F.log_softmax(logits, dim=0)[allowed.index(i)]
            back = [j for j in range(3) if j == i or LABELS[rows[j]] != LABELS[rows[i]]]
            logits = (candidates[i] @ anchors[back].T) / 0.05
            expected -= F.log_softmax(logits, dim=0)[back.index(i)]
    torch.testing.assert_close(terms["info_nce"], torch.as_tensor(expected) / 3 / len(DIMS), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        terms["relational"], 2.0 * relational_distillation(embeddings, base), rtol=1e-4, atol=1e-5
    )
    assert terms["relational"] > 1e-4, "the adapter differs from its base here"


def test_classification_teaches_the_adapter_alone(adapted: Encoder, sentences: list[str]) -> None:
    objective = classifier(adapted, sentences, LABELS)
    assert learning(objective, loss(objective, ROWS)) == adapter_parts(objective)


def test_the_relational_term_is_nothing_before_the_adapter_learns(student: Encoder, sentences: list[str]) -> None:
    add_adapter(student, "task", 4, 4)
    terms = loss(classifier(student, sentences, LABELS), ROWS)
    assert terms["relational"].item() == pytest.approx(0.0, abs=1e-10)


# Explicit negatives


def test_pairs_get_their_own_negatives_first_and_then_mined_ones() -> None:
    ids, mined = ["a", "b", "c"], {"a": ["b", "c"], "b": ["c"], "c": []}
    found = negative_rows(ids, mined, 2, {0: [3, 1], 2: [4]})
    assert found.tolist() == [[3, 1], [2, -1], [4, -1]]
    assert negative_rows(ids, mined, 3, {0: [1]}).tolist()[0] == [1, 2, -1], "a mined one is not taken twice"


def test_retrieval_trusts_the_negatives_that_a_source_names_against_the_margin(retrieval: RetrievalObjective) -> None:
    retrieval.false_negative_margin = 1.0  # takes every other candidate with a positive cosine for an answer
    targets = [side.targets(ROWS, torch.device("cpu")) for side in (retrieval.queries, retrieval.documents)]
    before = retrieval._excluded(ROWS, retrieval.negatives[ROWS], targets)
    retrieval.given[:, 0] = True
    after = retrieval._excluded(ROWS, retrieval.negatives[ROWS], targets)
    own = torch.zeros_like(before)
    own[torch.arange(4), 4 + 2 * torch.arange(4)] = True
    assert (before & own).any()
    assert not (after & own).any()
    assert torch.equal(after & ~own, before & ~own)


def test_text_matching_tells_a_pair_from_its_negative_but_no_other_pair_from_its_own_text() -> None:
    """By hand: three pairs without scores; the negative of pair 0 is a text of no pair, that of pair 1 is pair 2's."""
    left, right = torch.eye(4)[:3], torch.eye(4)[:3]
    objective = TextMatchingObjective.__new__(TextMatchingObjective)
    nn.Module.__init__(objective)
    objective.dims, objective.temperature, objective.negatives = (4,), 1.0, {0: 3, 1: 2}
    zeros = TrainingTexts(None, torch.zeros(4, 4))  # type: ignore[arg-type]
    objective.left = objective.right = zeros
    objective.projection = nn.Linear(4, 4)
    negatives = torch.stack([torch.eye(4)[3], right[2]])
    rows = np.array([0, 1, 2])
    found = objective._unscored(left, right, negatives, rows)["info_nce"]
    e = float(np.e)
    with_both, without = np.log((e + 2 + 2) / e), np.log((e + 2 + 1) / e)  # pair 2 is not told from its own text
    assert found.item() == pytest.approx((2 * with_both + without) / 3, rel=1e-5)


def test_text_matching_without_negatives_is_what_it_was(adapted: Encoder, sentences: list[str]) -> None:
    left, right = side(adapted, sentences[:6], "document", 1), side(adapted, sentences[6:12], "document", 2)
    plain = TextMatchingObjective(adapted, projection(), DIMS, sections.text_matching(), (left, right), np.array([]))
    assert len(plain.texts(ROWS)) == 8
    added = TrainingTexts.joined([right, TrainingTexts.of(adapted, sentences[12:13], "document", 24)])
    told = TextMatchingObjective(
        adapted, projection(), DIMS, sections.text_matching(), (left, added), np.array([]), {3: 6}
    )
    assert len(told.texts(ROWS)) == 9
    terms = loss(told, ROWS)
    assert terms["info_nce"] > loss(plain, ROWS)["info_nce"]
    assert learning(told, terms) == adapter_parts(told)
