"""The consumer's environment holds what was asked for and what that needs, and nothing else."""

from pathlib import Path

import pytest

from stages.release.environment import consumer_site, run_isolated
from stages.release.formats import OPTIONAL

IMPORT_EACH = """
import importlib, pathlib, sys
found = []
for name in sys.argv[2].split(","):
    try:
        importlib.import_module(name)
        found.append(name)
    except ModuleNotFoundError as error:
        assert error.name == name, error
pathlib.Path(sys.argv[1]).write_text(",".join(found))
"""
ABSENT = ("torch", "transformers", "sentence_transformers", "peft", "stages", "scipy", "mlflow")


@pytest.mark.parametrize("packages", sorted({form.packages for form in OPTIONAL}))
def test_a_light_consumer_has_what_it_installs_and_no_torch(packages: tuple[str, ...], tmp_path: Path) -> None:
    script, found = tmp_path / "try.py", tmp_path / "found.txt"
    script.write_text(IMPORT_EACH)
    site = consumer_site(packages, tmp_path / "site")
    run_isolated(site, script, [str(found), ",".join((*packages, *ABSENT))], tmp_path)
    assert found.read_text() == ",".join(packages)


def test_the_error_of_a_failed_script_is_reported(tmp_path: Path) -> None:
    (tmp_path / "fails.py").write_text("raise ValueError('no such model')")
    with pytest.raises(RuntimeError, match="ValueError: no such model"):
        run_isolated(tmp_path, tmp_path / "fails.py", [], tmp_path)


def test_a_package_that_is_not_installed_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match="no-such-package is not installed; `pip install no-such-package`"):
        consumer_site(["numpy", "no-such-package"], tmp_path)
