"""Teachers that a person names for a new recipe, by what their configs say."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from stages.inspection.teacher import teacher_of


def folder_of(folder: Path, **config: Any) -> str:
    """A model's folder with a config and one weight."""
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"weight": np.zeros(1)}, folder / "model.safetensors")
    return str(folder)


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "xlm-roberta", "num_hidden_layers": 8, "hidden_size": 96},
        {"model_type": "distilbert", "n_layers": 8, "dim": 96},
        {"model_type": "gpt2", "n_layer": 8, "n_embd": 96},
        {"model_type": "gemma3", "text_config": {"num_hidden_layers": 8, "hidden_size": 96}},
    ],
)
def test_architectures_name_their_size_in_their_own_words(tmp_path: Path, config: dict[str, Any]) -> None:
    values = teacher_of(folder_of(tmp_path, **config)).values
    assert (values["layers"], values["dims"]) == ([0, 2, 4, 6, 7], [32, 64, 96])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "t5", "num_layers": 8, "d_model": 96, "is_encoder_decoder": True}, "an encoder and a decoder"),
        ({"model_type": "bert", "hidden_size": 96}, r"has none of \['num_hidden_layers', .*name another teacher"),
        ({"num_hidden_layers": 8, "hidden_size": 96}, 'has no "model_type"'),
    ],
)
def test_a_teacher_without_a_size_is_refused(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        teacher_of(folder_of(tmp_path, **config))
