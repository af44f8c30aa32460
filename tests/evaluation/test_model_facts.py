"""Sizes and agreement of weights, read from a release's parity report."""

from typing import Any

import pytest

from stages.evaluation.model_facts import weights_facts


def read(**figures: float) -> dict[str, Any]:
    return {"reasons": [], "tasks": {"clustering": figures}}


def test_int8_weights_are_told_where_the_release_has_them() -> None:
    merged, near = read(megabytes=51.0), read(megabytes=14.0, cosine_min=0.99)
    unread = {"reasons": ["it cannot be read"], "tasks": {}}
    both = {"megabytes": 14.0, "cosine_min": 0.99, "float_megabytes": 51.0}
    assert weights_facts({"merged": merged}) == {"clustering": {"float_megabytes": 51.0}}
    assert weights_facts({"merged": merged, "onnx-int8": near}) == {"clustering": both}
    assert weights_facts({"merged": merged, "onnx-int8": near, "openvino-int8": unread}) == {"clustering": both}
    with pytest.raises(ValueError, match=r"no format with int8 weights could be read: .*it cannot be read"):
        weights_facts({"merged": merged, "openvino-int8": unread})
