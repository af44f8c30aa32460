"""Closed-form starts: ridge, the static embedder, the EuroBERT backbone that begins as it, the projection."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import nn

from stages.modeling import warm_start
from stages.modeling.encoder import Encoder, EncoderSettings, load_backbone, load_tokenizer
from stages.modeling.tokens import Tokens
from stages.objectives.distillation import DistillationObjective
from stages.objectives.training_texts import TrainingTexts
from stages.recipe.distill import Backbone

PROMPTS = {"query": "query : ", "document": ""}
GENERATOR = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return GENERATOR.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("penalty", [1e-4, 0.1, 3.0])
def test_ridge_is_that_of_scikit_learn(penalty: float) -> None:
    features, targets = normal(60, 7).astype(np.float64), normal(60, 5).astype(np.float64)
    alpha = penalty * np.trace(features.T @ features) / 7
    expected = Ridge(alpha=alpha, fit_intercept=False).fit(features, targets).coef_.T
    np.testing.assert_allclose(warm_start.ridge(features, targets, penalty), expected, rtol=1e-8)


def test_ridge_does_not_depend_on_the_features_scale() -> None:
    features, targets = normal(60, 7).astype(np.float64), normal(60, 5).astype(np.float64)
    one, other = warm_start.ridge(features, targets, 0.1), warm_start.ridge(10 * features, targets, 0.1)
    np.testing.assert_allclose(10 * other, one, rtol=1e-8)


def test_token_weights_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_start, "CHUNK_TEXTS", 1)
    weights = warm_start.token_weights(Tokens.of([[0, 1, 1], [1]]), vocabulary=3)
    a = warm_start.SMOOTHING
    np.testing.assert_allclose(weights, [a / (a + 0.25), a / (a + 0.75), 1.0])


def test_weighted_mean_by_hand() -> None:
    table = np.array([[1.0, 0.0], [0.0, 1.0], [4.0, 4.0]])
    means = warm_start.weighted_mean(table, np.array([1.0, 3.0, 0.5]), Tokens.of([[0, 1], [1, 1], [2]]))
    np.testing.assert_allclose(means, [[0.25, 0.75], [0.0, 1.0], [4.0, 4.0]])


def test_static_map_is_ridge_into_the_principal_axes_however_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    table, weights, teacher = normal(20, 4), np.linspace(0.1, 1, 20), normal(50, 6)
    tokens = Tokens.of(GENERATOR.integers(0, 20, size=(50, 5)).tolist())
    means = warm_start.weighted_mean(table, weights, tokens)
    expected = warm_start.ridge(means, teacher, 0.1) @ warm_start.principal_axes(teacher.T @ teacher)[:, :4]
    np.testing.assert_allclose(warm_start.static_map(table, weights, tokens, teacher, 0.1), expected, rtol=1e-6)
    monkeypatch.setattr(warm_start, "CHUNK_TEXTS", 7)
    in_pieces = warm_start.static_map(table, weights, tokens, teacher, 0.1)
    # An axis has no sign of its own.
    np.testing.assert_allclose(np.abs(in_pieces), np.abs(expected), rtol=1e-3, atol=1e-5)


def test_nearest_rotation_finds_the_one_that_was_made() -> None:
    vectors = normal(60, 7).astype(np.float64)
    rotation = np.linalg.qr(normal(7, 7).astype(np.float64))[0][:, :4]
    found = warm_start.nearest_rotation(vectors, 3 * vectors @ rotation)
    np.testing.assert_allclose(found.T @ found, np.eye(4), atol=1e-10)
    square = np.linalg.qr(normal(7, 7).astype(np.float64))[0]
    np.testing.assert_allclose(warm_start.nearest_rotation(vectors, 3 * vectors @ square), square, atol=1e-10)
    assert np.linalg.norm(found - rotation) < np.linalg.norm(np.eye(7)[:, :4] - rotation)


def test_principal_axes_are_a_rotation_that_puts_the_most_first() -> None:
    vectors = normal(200, 6) * np.array([1, 5, 2, 0.1, 3, 0.5])
    axes = warm_start.principal_axes(vectors.T @ vectors)
    np.testing.assert_allclose(axes.T @ axes, np.eye(6), atol=1e-5)
    energy = np.square(vectors @ axes).sum(axis=0)
    assert (np.diff(energy) <= 0).all()
    singular = np.linalg.svd(vectors, compute_uv=False)
    np.testing.assert_allclose(energy, singular**2, rtol=1e-3)


def test_a_zero_row_of_the_token_table_stays_zero(backbones: dict[str, Path]) -> None:
    backbone = load_backbone(str(backbones["eurobert"]))
    with torch.no_grad():
        backbone.get_input_embeddings().weight[0] = 0.0  # as that of the padding token, where one is declared
    table = warm_start.token_table(backbone)
    assert not table[0].any()
    assert np.isfinite(table).all()


@pytest.mark.parametrize("architecture", ["bert", "eurobert", "qwen3"])
def test_token_table_has_rows_of_unit_size(backbones: dict[str, Path], architecture: str) -> None:
    backbone = load_backbone(str(backbones[architecture]))
    table = warm_start.token_table(backbone)
    rows = [row for row in range(len(table)) if row != 0]  # a padding token's row is zero in some architectures
    np.testing.assert_allclose(np.square(table[rows]).mean(axis=1), 1.0, rtol=1e-4)
    raw = backbone.get_input_embeddings().weight.detach().numpy()
    if architecture != "bert":  # BERT's embeddings pass a layer norm first
        cosines = (table[rows] * raw[rows]).sum(axis=1) / np.linalg.norm(table[rows], axis=1)
        np.testing.assert_allclose(cosines, np.linalg.norm(raw[rows], axis=1), rtol=1e-4)


WIDTH = 192  # of the started student: enough that giving one coordinate away costs little


class Start:
    """A EuroBERT backbone started from a random token table, with everything it was started from."""

    def __init__(self, folder: Path, sentences: list[str]) -> None:
        torch.manual_seed(0)
        generator = np.random.default_rng(1)
        tokenizer = load_tokenizer(str(folder))
        settings = EncoderSettings("last", PROMPTS, 24)
        self.tokens = Encoder(load_backbone(str(folder)), tokenizer, settings).tokenize(sentences, "document")
        table = generator.normal(size=(len(tokenizer), WIDTH)).astype(np.float32)
        self.table = table / np.sqrt(np.square(table).mean(axis=1, keepdims=True))
        self.weights = warm_start.token_weights(self.tokens, len(tokenizer))
        self.mixing = np.linalg.qr(generator.normal(size=(WIDTH, WIDTH)))[0].astype(np.float32)
        shape = Backbone(
            path=str(folder),
            architecture="eurobert",
            layers=None,
            num_layers=2,
            num_attention_heads=6,
            intermediate_size=64,
            max_position_embeddings=64,
        )
        backbone = warm_start.eurobert(shape, 10_000.0, self.table, self.weights, self.mixing, tokenizer)
        self.encoder = Encoder(backbone, tokenizer, settings).eval()

    @property
    def static(self) -> np.ndarray:
        means: np.ndarray = warm_start.weighted_mean(self.table, self.weights, self.tokens) @ self.mixing
        return means

    def attention_output(self) -> np.ndarray:
        """What the first layer's attention adds at the last token of each text: [N, D]."""
        caught: list[torch.Tensor] = []
        attention = self.encoder.backbone.layers[0].self_attn
        handle = attention.register_forward_hook(lambda module, inputs, output: caught.append(output[0]))
        with torch.inference_mode():
            for row in range(len(self.tokens)):
                self.encoder(**self.encoder.pad(self.tokens[row : row + 1]))
        handle.remove()
        return torch.stack([output[0, -1] for output in caught]).numpy()


@pytest.fixture(scope="module", params=["bert", "qwen3"])
def start(request: pytest.FixtureRequest, backbones: dict[str, Path], sentences: list[str]) -> Start:
    """From a tokenizer with separator and mask tokens, and from one with an end-of-sequence token alone."""
    return Start(backbones[request.param], sentences)


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Cosine of each row with its like, without what all rows share."""
    left, right = left - left.mean(axis=0), right - right.mean(axis=0)
    product: np.ndarray = (left * right).sum(axis=1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)
    return product


def test_first_attention_starts_as_the_static_embedder(start: Start) -> None:
    """One of 192 coordinates carries the weights, and heads start with small random queries: not exact, but near."""
    similar = cosines(start.attention_output(), start.static)
    assert similar.min() > 0.98
    assert np.median(similar) > 0.998
    equal_weights = warm_start.weighted_mean(start.table, np.ones(len(start.table)), start.tokens) @ start.mixing
    assert np.median(cosines(start.attention_output(), equal_weights)) < 0.98, "the weights matter here"


def test_embedding_starts_near_the_static_embedder(start: Start, sentences: list[str]) -> None:
    """After the residual, the random MLPs and the second layer."""
    unit = start.static / np.linalg.norm(start.static, axis=1, keepdims=True)
    similar = cosines(start.encoder.encode(sentences, "document"), unit)
    assert similar.min() > 0.95
    assert np.median(similar) > 0.98


def test_projection_start_is_the_ridge_solution_with_an_intercept() -> None:
    embeddings, teacher = normal(80, 6), normal(80, 4) + 2
    projection = nn.Linear(6, 4)
    warm_start.start_projection(projection, embeddings, teacher, penalty=1e-9)
    expected = np.linalg.lstsq(np.hstack([embeddings, np.ones((80, 1))]), teacher, rcond=None)[0]
    np.testing.assert_allclose(projection.weight.detach().numpy(), expected[:-1].T, atol=1e-4)
    np.testing.assert_allclose(projection.bias.detach().numpy(), expected[-1], atol=1e-4)
    assert projection.weight.requires_grad


def test_projection_start_lowers_the_distillation_loss(start: Start, sentences: list[str]) -> None:
    torch.manual_seed(1)
    teacher = (start.static @ normal(WIDTH, 24)).astype(np.float16)  # a teacher within reach of the static embedder
    projection = nn.Linear(WIDTH, 24)
    data = TrainingTexts(start.tokens, torch.from_numpy(teacher))
    objective = DistillationObjective(start.encoder, projection, [WIDTH], data)
    rows, embeddings = np.arange(len(sentences)), start.encoder.encode(sentences, "document")
    with torch.no_grad():
        random = objective(rows, torch.from_numpy(embeddings), None)["distillation"].item()
        warm_start.start_projection(projection, embeddings, teacher, 1e-3)
        started = objective(rows, torch.from_numpy(embeddings), None)["distillation"].item()
    assert random > 0.8
    assert started < 0.1 * random
