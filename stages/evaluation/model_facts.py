"""Facts about teacher and student that the report shows beside their scores."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from stages.modeling.backbones import load_backbone
from stages.modeling.encoder import Encoder
from stages.recipe.embed import Embed
from stages.recipe.fields import TASKS


def teacher_facts(embed: Embed, dimensions: int) -> dict[str, Any]:
    """Give the teacher's name and dimensions, and its number of parameters where it is a backbone alone."""
    teacher, parameters = embed.teacher, None
    if teacher.kind == "transformer":
        parameters = sum(weight.numel() for weight in load_backbone(teacher.path).parameters())
    return {"name": teacher.name, "dimensions": dimensions, "parameters": parameters}


def student_facts(base: Encoder, release: Path) -> dict[str, Any]:
    """Give the shape of the released student, the tasks that it has adapters for, and the size of the first."""
    tasks = [task for task in TASKS if (release / "adapters" / task).is_dir()]
    with safe_open(release / "adapters" / tasks[0] / "adapter_model.safetensors", "np") as adapter:
        shapes = [adapter.get_slice(name).get_shape() for name in adapter.keys()]  # noqa: SIM118 (no mapping)
    return {
        "parameters": sum(weight.numel() for weight in base.parameters()),
        "tasks": tasks,
        "adapter_parameters": sum(map(math.prod, shapes)),
        "dimensions": base.dimensions,
        "layers": base.backbone.config.num_hidden_layers,
        "architecture": base.backbone.config.model_type,
        "pooling": base.settings.pooling,
    }


def weights_facts(formats: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Give by task the size of the float model, with agreement and size of int8 weights, from OpenVINO or else ONNX.

    Args:
        formats: the formats of the release's parity.json, of which none may have int8 weights.

    Raises:
        ValueError: there are formats of int8 weights, and none could be loaded.
    """
    sizes = {task: {"float_megabytes": figures["megabytes"]} for task, figures in formats["merged"]["tasks"].items()}
    int8 = {name: formats[name] for name in ("openvino-int8", "onnx-int8") if name in formats}
    if not int8:
        return sizes
    for report in int8.values():
        if report["tasks"]:
            return {task: figures | sizes[task] for task, figures in report["tasks"].items()}
    reasons = {name: report["reasons"] for name, report in int8.items()}
    raise ValueError(f"no format with int8 weights could be read: {reasons}")
