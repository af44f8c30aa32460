"""The model card: front matter that parses, examples for what is shipped, licences of the sources."""

from typing import Any

import pytest
from ruamel.yaml import YAML

from stages.reporting.card import render_card


@pytest.fixture
def about() -> dict[str, Any]:
    source = {"name": "wiki", "kind": "pairs", "language": "en", "license": "CC-BY-SA-4.0"}
    weights = {"retrieval": {"cosine_mean": 0.9991, "cosine_min": 0.998, "megabytes": 14.0, "float_megabytes": 55.5}}
    return {
        "name": "demo",
        "license": "CC-BY-SA-4.0",
        "teacher": "package:teacher/model",
        "dims": [64, 192, 384],
        "sources": [source, source | {"name": "other", "language": "fr"}],
        "weights": weights,
    }


@pytest.mark.parametrize("task", [None, "retrieval", "clustering"])
def test_front_matter_parses(about: dict[str, Any], task: str | None) -> None:
    _, front, body = render_card(about, task).split("---\n", 2)
    assert YAML(typ="safe").load(front)["language"] == ["en", "fr"]
    assert f"# demo{'-' + task if task else ''}" in body
    assert "| wiki | pairs | en | CC-BY-SA-4.0 |" in body
    assert "&#34;" not in body


def test_the_release_states_what_int8_weights_cost(about: dict[str, Any]) -> None:
    assert "| retrieval | 0.99910 | 0.99800 | 14.0 | 55.5 |" in render_card(about, None)
    assert "openvino" not in render_card(about, "retrieval")


def test_a_task_that_reads_documents_only_says_so(about: dict[str, Any]) -> None:
    assert "both sides as documents" in render_card(about, "clustering")
    assert "both sides as documents" not in render_card(about, "retrieval")
