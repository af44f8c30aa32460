"""Digests of files and folders."""

import hashlib
from pathlib import Path


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and contents of a folder's files, as hexadecimal.

    Left out are `.gitignore`, which DVC writes beside its outputs, and Python's bytecode.
    """
    if path.is_file():
        with path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    total = hashlib.sha256()
    files = (file for file in path.rglob("*") if file.is_file())
    for file in sorted(files, key=lambda file: file.relative_to(path).as_posix()):
        if file.name != ".gitignore" and "__pycache__" not in file.parts:
            total.update(f"{file.relative_to(path).as_posix()}\0{digest(file)}\n".encode())
    return total.hexdigest()
