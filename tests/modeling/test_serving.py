"""The served model, through MLflow's loader and its HTTP server, against plain Sentence Transformers."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel

from stages.registry.registration import SERVING, signature
from tests.servers import free_port, serving

TEXTS = ["a copper still", "malt", "spirit of oak : a still house"]


@pytest.fixture(scope="module")
def model_folder(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import mlflow

    folder = tmp_path_factory.mktemp("served") / "model"
    artifacts = {"merged": str(tiny_release / "merged"), "calibration": str(tiny_release / "calibration.json")}
    mlflow.pyfunc.save_model(
        path=folder,
        python_model=str(SERVING),
        artifacts=artifacts,
        signature=signature("retrieval"),
        pip_requirements=["mlflow", "sentence-transformers"],
    )
    return folder


@pytest.fixture(scope="module")
def model(model_folder: Path) -> PyFuncModel:
    import mlflow

    return mlflow.pyfunc.load_model(str(model_folder))


def expected(release: Path, task: str, prompt: str, dimensions: int) -> np.ndarray:
    """What a consumer without MLflow gets."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(release / "merged" / task), device="cpu")
    embeddings = model.encode([prompt + text for text in TEXTS], prompt="")[:, :dimensions]
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


@pytest.mark.parametrize("task", ["retrieval", "text-matching", "clustering", "classification"])
def test_each_task_gives_the_vectors_of_its_folder(model: PyFuncModel, tiny_release: Path, task: str) -> None:
    served: np.ndarray = np.asarray(model.predict(pd.DataFrame({"text": TEXTS}), params={"task": task}))
    assert served.dtype == np.float32
    np.testing.assert_allclose(served, expected(tiny_release, task, "Document: ", 32), atol=1e-6)


def test_a_cut_embedding_of_a_query_has_unit_length(model: PyFuncModel, tiny_release: Path) -> None:
    params = {"task": "clustering", "dimensions": 8, "prompt": "query"}
    served = model.predict(pd.DataFrame({"text": TEXTS}), params=params)
    np.testing.assert_allclose(served, expected(tiny_release, "clustering", "Query: ", 8), atol=1e-6)


@pytest.mark.parametrize(
    ("precision", "dtype", "width"),
    [("int8", "int8", 16), ("uint8", "uint8", 16), ("binary", "int8", 2), ("ubinary", "uint8", 2)],
)
def test_a_precision_is_the_one_of_the_releases_ranges(
    model: PyFuncModel, tiny_release: Path, precision: str, dtype: str, width: int
) -> None:
    params = {"task": "clustering", "dimensions": 16, "precision": precision}
    served: np.ndarray = np.asarray(model.predict(TEXTS, params=params))
    assert (served.dtype, served.shape) == (dtype, (len(TEXTS), width))
    vectors, limit = expected(tiny_release, "clustering", "Document: ", 16), 0.5
    by_hand = {
        "uint8": np.clip(np.floor((vectors + limit) / (2 * limit / 255)), 0, 255),
        "int8": np.clip(np.floor((vectors + limit) / (2 * limit / 255)), 0, 255) - 128,
        "ubinary": np.packbits(vectors > 0, axis=1),
        "binary": np.packbits(vectors > 0, axis=1).astype(int) - 128,
    }[precision]
    np.testing.assert_allclose(served.astype(int), by_hand, atol=1 if "int8" in precision else 0)
    assert np.shape(model.predict(pd.DataFrame({"text": pd.Series([], dtype=str)}), params=params)) == (0, width)


def test_a_plain_list_or_text_or_no_row_will_do(model: PyFuncModel) -> None:
    rows: np.ndarray = np.asarray(model.predict(pd.DataFrame({"text": TEXTS})))
    np.testing.assert_allclose(model.predict(TEXTS), rows, atol=1e-6)
    np.testing.assert_allclose(model.predict(TEXTS[0]), rows[:1], atol=1e-6)
    assert np.shape(model.predict(pd.DataFrame({"text": pd.Series([], dtype=str)}))) == (0, 32)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"task": "translation"}, "unknown task 'translation': expected one of classification, clustering"),
        ({"dimensions": 33}, "dimensions=33: expected 1 to 32"),
        ({"dimensions": -1}, "dimensions=-1: expected 1 to 32"),
        ({"prompt": "title"}, "unknown prompt 'title': expected one of document, query"),
        ({"precision": "int4"}, "unknown precision 'int4': expected one of float32, int8, uint8, binary, ubinary"),
        ({"precision": "int8", "dimensions": 9}, "no int8 range for dimensions=9: expected one of 8, 16, 32"),
    ],
)
def test_a_wrong_parameter_is_explained(model: PyFuncModel, params: dict[str, Any], message: str) -> None:
    with pytest.raises(MlflowException, match=message):
        model.predict(TEXTS, params=params)


def test_a_wrong_input_is_explained(model: PyFuncModel) -> None:
    with pytest.raises(MlflowException, match="a column named 'body': expected one named 'text'"):
        model.predict(pd.DataFrame({"body": TEXTS}))
    with pytest.raises(MlflowException, match="row 1 is"):
        model.predict(pd.DataFrame({"text": ["a still", None]}))


def test_a_model_is_loaded_at_its_first_use_and_once(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow
    import sentence_transformers

    loaded: list[str] = []
    real = sentence_transformers.SentenceTransformer

    def load(path: str, **options: Any) -> Any:
        loaded.append(Path(path).name)
        return real(path, **options)

    monkeypatch.setattr(sentence_transformers, "SentenceTransformer", load)
    model = mlflow.pyfunc.load_model(str(model_folder))
    assert loaded == []
    for task in ("clustering", "retrieval", "clustering"):
        model.predict(TEXTS, params={"task": task})
    assert loaded == ["clustering", "retrieval"]


@pytest.fixture(scope="module")
def server(model_folder: Path) -> Iterator[str]:
    """Address of `mlflow models serve` on a free loopback port."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(model_folder)]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    # The model must not lean on this repository: it runs from another folder.
    elsewhere = {"cwd": model_folder.parent, "env": served_environment()}
    with serving(command, f"http://127.0.0.1:{port}/ping", model_folder.with_name("serve.log"), **elsewhere):
        yield f"http://127.0.0.1:{port}/invocations"


def served_environment() -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PATH": path}


@pytest.mark.slow
def test_the_server_takes_task_and_dimensions(server: str, model: PyFuncModel) -> None:
    params = {"task": "classification", "dimensions": 16, "prompt": "query"}
    rows = model.predict(TEXTS, params=params)
    for body in (
        {"dataframe_records": [{"text": text} for text in TEXTS]},
        {"dataframe_split": {"columns": ["text"], "data": [[text] for text in TEXTS]}},
        {"inputs": TEXTS},
    ):
        answer = httpx.post(server, json={**body, "params": params}, timeout=60)
        assert answer.status_code == httpx.codes.OK, answer.text
        np.testing.assert_allclose(np.array(answer.json()["predictions"]), rows, atol=1e-6)


@pytest.mark.slow
def test_the_server_refuses_an_unknown_task_as_the_callers_error(server: str) -> None:
    answer = httpx.post(server, json={"inputs": TEXTS, "params": {"task": "translation"}}, timeout=60)
    assert answer.status_code == httpx.codes.BAD_REQUEST
    assert "unknown task 'translation'" in answer.text


def test_a_task_that_the_release_lacks_is_refused_with_those_that_it_has(tiny_release: Path, tmp_path: Path) -> None:
    import mlflow

    shutil.copytree(tiny_release / "merged/clustering", tmp_path / "merged/clustering")
    artifacts = {"merged": str(tmp_path / "merged"), "calibration": str(tiny_release / "calibration.json")}
    folder, packages = tmp_path / "model", ["mlflow", "sentence-transformers"]
    mlflow.pyfunc.save_model(
        folder,
        python_model=str(SERVING),
        artifacts=artifacts,
        signature=signature("clustering"),
        pip_requirements=packages,
    )
    model = mlflow.pyfunc.load_model(str(folder))
    with pytest.raises(MlflowException, match="unknown task 'retrieval': expected one of clustering"):
        model.predict(TEXTS, params={"task": "retrieval"})
    np.testing.assert_allclose(model.predict(TEXTS), expected(tiny_release, "clustering", "Document: ", 32), atol=1e-6)
