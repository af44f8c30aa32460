"""A consumer's environment: links to a few installed packages and to their requirements, and nothing else."""

import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# -I leaves out the working folder, PYTHONPATH and the user's packages; -S leaves out this environment's packages.
ISOLATED = ("-I", "-S")
_PROGRAM = "import runpy, sys; sys.path.append(sys.argv.pop(1)); runpy.run_path(sys.argv.pop(1), run_name='__main__')"


def consumer_site(packages: Iterable[str], folder: Path) -> Path:
    """Fill a folder with links so that, on `sys.path`, it provides the packages and all their requirements.

    Raises:
        ModuleNotFoundError: one of the packages is not installed here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for package in _with_requirements(packages):
        for name in {file.parts[0] for file in package.files or []} - {"..", "__pycache__"}:
            link = folder / name
            if not link.is_symlink():  # several packages may share a namespace
                link.symlink_to(Path(str(package.locate_file(name))).resolve())
    return folder


def _with_requirements(packages: Iterable[str]) -> list[Distribution]:
    """Find the packages and, in turn, their installed requirements for this platform, without extras."""
    named = list(packages)
    waiting, found = list(named), {}
    while waiting:
        name = waiting.pop()
        if canonicalize_name(name) in found:
            continue
        try:
            found[canonicalize_name(name)] = distribution(name)
        except PackageNotFoundError:
            if name in named:
                raise ModuleNotFoundError(f"{name} is not installed; `pip install {name}`", name=name) from None
            continue
        requirements = map(Requirement, found[canonicalize_name(name)].requires or [])
        waiting += [one.name for one in requirements if one.marker is None or one.marker.evaluate({"extra": ""})]
    return list(found.values())


def run_isolated(site: Path, script: Path, arguments: Sequence[str], folder: Path) -> None:
    """Run a script in a process that can import only the standard library and the packages in `site`.

    Raises:
        RuntimeError: the script failed; the message holds the last lines of its standard error.
    """
    command = [sys.executable, *ISOLATED, "-c", _PROGRAM, str(site), str(script), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError("\n".join(done.stderr.strip().splitlines()[-3:]) or f"ended with {done.returncode}")
