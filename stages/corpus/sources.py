"""Readers by name: what turns a declared source's files into records."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from stages.corpus.locations import check_versions, matching_files
from stages.corpus.readers import botocore, docstrings, human_scores, wikipedia

Record = dict[str, Any]

READERS: dict[str, Callable[..., Iterator[Record]]] = {
    "wikipedia.leads": wikipedia.leads,
    "wikipedia.descriptions": wikipedia.descriptions,
    "wikipedia.topics": wikipedia.topics,
    "docstrings.pairs": docstrings.pairs,
    "docstrings.packages": docstrings.packages,
    "botocore.operations": botocore.operations,
    "human_scores.word_pairs": human_scores.word_pairs,
    "human_scores.document_matrix": human_scores.document_matrix,
}


def source_files(files: tuple[str, ...], packages: Mapping[str, str]) -> list[Path]:
    """The files of a source, once the packages they come from are there in the declared version."""
    check_versions(packages)
    return [path for location in files for path in matching_files(location)]


def read_records(reader: str, files: list[Path], options: Mapping[str, float | str]) -> Iterator[Record]:
    """Records of a source.

    Raises:
        ValueError: no reader has that name, or it does not take these options.
    """
    if reader not in READERS:
        raise ValueError(f"unknown reader {reader!r}; the readers are {', '.join(READERS)}")
    try:
        return READERS[reader](files, **options)
    except TypeError as error:
        raise ValueError(f"reader {reader}: {error}; correct the source's options") from error
