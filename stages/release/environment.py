"""A consumer's environment: a folder of links to a few installed packages and to what they need, and nothing else."""

import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# -I: neither the working folder nor PYTHONPATH nor the user's own packages; -S: not those of this environment either.
ISOLATED = ("-I", "-S")
_PROGRAM = "import runpy, sys; sys.path.append(sys.argv.pop(1)); runpy.run_path(sys.argv.pop(1), run_name='__main__')"


def consumer_site(packages: Iterable[str], folder: Path) -> Path:
    """Fill a folder that holds, once on `sys.path`, the packages with all that they require.

    Raises:
        ModuleNotFoundError: one of the packages is not installed here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for found in _with_requirements(packages):
        files = found.files or []
        names = {file.parts[0] for file in files} - {"..", "__pycache__"}
        for name in names:
            link = folder / name
            if not link.is_symlink():  # a namespace that several packages share
                link.symlink_to(Path(str(found.locate_file(name))).resolve())
    return folder


def _with_requirements(packages: Iterable[str]) -> list[Distribution]:
    """The packages and, in turn, what they require on this platform without extras, as far as it is installed."""
    waiting, found = list(packages), {}
    asked = set(waiting)
    while waiting:
        name = waiting.pop()
        if canonicalize_name(name) in found:
            continue
        try:
            found[canonicalize_name(name)] = distribution(name)
        except PackageNotFoundError:
            if name in asked:
                raise ModuleNotFoundError(f"{name} is not installed; `pip install {name}`", name=name) from None
            continue
        requirements = map(Requirement, found[canonicalize_name(name)].requires or [])
        waiting += [one.name for one in requirements if one.marker is None or one.marker.evaluate({"extra": ""})]
    return list(found.values())


def run_isolated(site: Path, script: Path, arguments: Sequence[str], folder: Path) -> None:
    """Run a script in a process that can import the standard library and what is in `site`.

    Raises:
        RuntimeError: it failed; its last lines are in the message.
    """
    command = [sys.executable, *ISOLATED, "-c", _PROGRAM, str(site), str(script), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError("\n".join(done.stderr.strip().splitlines()[-3:]) or f"ended with {done.returncode}")
