"""Side effects of exporting to OpenVINO, and settings of the exported model."""

import os
import subprocess
import sys
from pathlib import Path

import openvino
import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_exporting_reports_nothing_to_anyone() -> None:
    """In a process of its own: NNCF is silent by itself where pytest runs."""
    code = (
        "import stages.release.openvino_int8, openvino.tools.ovc as ovc, nncf.telemetry.wrapper as nncf, sys;"
        "mute = not isinstance(nncf.telemetry, nncf.NNCFTelemetry);"
        "print(type(ovc.telemetry).__module__, mute, sys.modules['openvino_telemetry'])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["openvino.tools.ovc.telemetry_stub", "True", "None"]


@pytest.mark.slow
def test_the_model_keeps_float_activations_where_it_is_loaded(built: Path) -> None:
    model = openvino.Core().compile_model(built / "openvino-int8/retrieval/model.xml", "CPU")
    assert model.get_property("DYNAMIC_QUANTIZATION_GROUP_SIZE") == 0
