"""The model card: front matter that parses, examples for what is shipped, licences of the sources."""

from typing import Any

import pytest
from ruamel.yaml import YAML

from stages.reporting.card import render_card


@pytest.fixture
def about() -> dict[str, Any]:
    source = {"name": "wiki", "kind": "pairs", "language": "en", "license": "CC-BY-SA-4.0"}
    near = {"cosine_mean": 0.9991, "cosine_min": 0.998, "top1": 0.97, "megabytes": 14.0}
    far = {"cosine_mean": 0.9, "cosine_min": 0.8, "top1": 1.0, "megabytes": 15.0}
    return {
        "name": "demo",
        "license": "CC-BY-SA-4.0",
        "teacher": "package:teacher/model",
        "tasks": ["retrieval", "clustering"],
        "dims": [64, 192, 384],
        "pooling": "mean",
        "sources": [source, source | {"name": "other", "language": "fr"}],
        "formats": {
            "openvino-int8": {"released": True, "reasons": [], "tasks": {"retrieval": near, "clustering": near}},
            "onnx": {
                "released": False,
                "reasons": ["clustering: too far"],
                "tasks": {"retrieval": near, "clustering": far},
            },
        },
    }


@pytest.mark.parametrize("task", [None, "retrieval", "clustering"])
def test_front_matter_parses(about: dict[str, Any], task: str | None) -> None:
    _, front, body = render_card(about, task).split("---\n", 2)
    assert YAML(typ="safe").load(front)["language"] == ["en", "fr"]
    assert f"# demo{'-' + task if task else ''}" in body
    assert "| wiki | pairs | en | CC-BY-SA-4.0 |" in body
    assert "&#34;" not in body


def test_the_release_states_the_worst_of_each_format(about: dict[str, Any]) -> None:
    card = render_card(about, None)
    assert "| openvino-int8 | 0.999100 | 0.998000 | 97.0 % | 14.0 |" in card
    assert "| onnx | 0.900000 | 0.800000 | 97.0 % | 15.0 |" in card
    assert "Not released: onnx, as clustering: too far." in card
    assert "import openvino" in card and "import onnxruntime" not in card
    assert "openvino" not in render_card(about, "retrieval")


def test_a_task_that_reads_documents_only_says_so(about: dict[str, Any]) -> None:
    assert "both sides as documents" in render_card(about, "clustering")
    assert "both sides as documents" not in render_card(about, "retrieval")


def test_a_release_of_one_task_without_graphs_speaks_of_no_other(about: dict[str, Any]) -> None:
    figures = about["formats"]["openvino-int8"]["tasks"]["clustering"]
    formats = {name: {"released": True, "reasons": [], "tasks": {"clustering": figures}} for name in ("merged",)}
    card = render_card(about | {"tasks": ["clustering"], "formats": formats}, None)
    assert "merged/clustering" in card and '"adapters/clustering", adapter_name="clustering"' in card
    for other in ("merged/retrieval", "adapters/retrieval", "load_adapter", "onnx", "Without torch", "The worst of"):
        assert other not in card
    assert '["int8_limit"]["clustering"]' in card
