"""The consumer's environment holds what was asked for and what that needs, and nothing else."""

from pathlib import Path

import pytest

from stages.release.environment import consumer_site, run_isolated
from stages.release.formats import OPTIONAL

TRY = """
import importlib, sys
for name in sys.argv[1].split(","):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        print(error.name, "cannot be imported")
        sys.exit(f"no {error.name}")
"""


@pytest.mark.parametrize("packages", sorted({one.packages for one in OPTIONAL}))
def test_a_light_consumer_has_no_torch(packages: tuple[str, ...], tmp_path: Path) -> None:
    site = consumer_site(packages, tmp_path / "site")
    script = tmp_path / "try.py"
    script.write_text(TRY)
    run_isolated(site, script, [",".join(packages)], tmp_path)
    for absent in ("torch", "transformers", "sentence_transformers", "peft", "stages", "scipy", "mlflow"):
        with pytest.raises(RuntimeError, match=f"no {absent}"):
            run_isolated(site, script, [absent], tmp_path)


def test_a_package_that_is_not_installed_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match="no-such-package is not installed; `pip install no-such-package`"):
        consumer_site(["numpy", "no-such-package"], tmp_path)
