"""`stillhouse search`: the release, its teacher and BM25 side by side."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from ruamel.yaml import YAML

from stages.registry import store
from stages.usage import search as module
from stages.usage.search import search


class OakTeacher:
    """A teacher for which a query is nearest to the last document that was embedded."""

    def __init__(self, *_: Any) -> None: ...

    def of(self, _side: str, texts: list[str], _sources: list[str]) -> np.ndarray:
        return np.eye(len(texts), dtype=np.float16)

    def embed(self, _texts: list[str], _rule: Any) -> np.ndarray:
        return np.eye(24, dtype=np.float32)[-1:]


@pytest.fixture
def built(evaluated: Path, recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    shutil.copytree(evaluated / "data", tmp_path / "data")
    YAML(typ="safe").dump(recipe, tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("COLUMNS", "150")
    yield tmp_path
    mlflow.set_tracking_uri("")


def test_each_ranks_the_documents_of_the_build(
    built: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "TeacherVectors", OakTeacher)
    monkeypatch.setattr(module, "load_teacher", OakTeacher)
    search("copper wort", top=2)
    shown = capsys.readouterr().out
    assert "tiny" in shown
    assert "1.000 words" in shown  # the teacher's nearest document
    assert "BM25" in shown
    assert "24 documents of data/curated" in shown
    assert len(list((built / ".stillhouse/evaluated").glob("*.npy"))) == 1


def test_the_champion_is_searched_though_another_release_was_built_later(
    built: Path, recipe: dict[str, Any], empty_store: Path, tiny_release: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(empty_store, "mlflow.db")
    shutil.copytree(tiny_release / "merged", "data/other/artifacts/merged")
    name, client = recipe["promote"]["registered_model"], store.registry()
    client.create_registered_model(name)
    client.create_model_version(name, Path("data/other").resolve().as_uri())
    search("copper wort", top=1)
    assert "tiny, the last build" in " ".join(capsys.readouterr().out.split())
    client.set_registered_model_alias(name, store.CHAMPION, "1")
    shutil.rmtree("data/quantized")
    search("copper wort", top=1)
    assert f"{name} version 1, the champion" in " ".join(capsys.readouterr().out.split())
    shutil.rmtree("data/other")
    with pytest.raises(ValueError, match=r"the champion of .* cannot be read.*--release"):
        search("copper wort", top=1)


def test_a_search_makes_no_registry(built: Path) -> None:
    search("copper wort", top=1)
    assert not Path("mlflow.db").exists()


def test_without_a_teacher_the_others_are_shown(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    search("copper wort", top=1)
    shown = capsys.readouterr().out
    assert "the teacher is left out: " in shown
    assert "BM25" in shown


def test_documents_that_the_teacher_lacks_are_counted(
    built: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [("known", f"copper {at}") for at in range(24)] + [("unknown", "wort")]

    class Forgetful(OakTeacher):
        def of(self, side: str, texts: list[str], sources: list[str]) -> np.ndarray:
            if "unknown" in sources:
                raise KeyError(side)
            return super().of(side, texts, sources)

    monkeypatch.setattr(module, "_documents", lambda _: found)
    monkeypatch.setattr(module, "TeacherVectors", Forgetful)
    monkeypatch.setattr(module, "load_teacher", Forgetful)
    search("copper", top=1)
    assert "the teacher has embedded 24 of the 25 documents" in capsys.readouterr().out


def test_a_narrow_terminal_has_the_lists_below_one_another(
    built: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    search("copper wort", top=1)
    shown = capsys.readouterr().out
    assert max(len(line) for line in shown.splitlines() if "│" in line) <= 60
    assert shown.index("tiny") < shown.index("BM25")


def test_a_source_without_documents_is_an_error(built: Path) -> None:
    with pytest.raises(ValueError, match="no documents of nothing"):
        search("copper", source=("nothing",))


def test_a_checkout_without_a_build_says_what_to_do(built: Path) -> None:
    shutil.rmtree("data/quantized")
    with pytest.raises(ValueError, match="run `make build` first"):
        search("copper")


def test_a_release_without_retrieval_names_its_tasks(built: Path) -> None:
    shutil.rmtree("data/quantized/tiny/merged/retrieval")
    with pytest.raises(ValueError, match="expected one of this release's: classification, clustering, text-matching"):
        search("copper")
