"""Facts about teacher and student that the report shows beside their scores."""

import math
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
