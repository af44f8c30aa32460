"""Readers by name: what turns a declared source's files or data sets into records."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from stages.corpus.locations import HubDataset, Place, RemoteFile, check_versions, matching_places
from stages.corpus.packaged import (
    botocore,
    docstrings,
    encyclopedia,
    human_scores,
    needles,
    speeches,
    weaknesses,
    wikipedia,
)
from stages.corpus.readers import beir, gettext, rows
from stages.corpus.readers.unreadable import Unreadable

Record = dict[str, Any]
Reader = Callable[..., Iterator[Record | Unreadable]] | Callable[..., Iterator[Record]]

# Readers of any table, in files or in the hub's data sets; the source's options name the columns.
ROW_READERS: dict[str, Reader] = {
    "rows.pairs": rows.pairs,
    "rows.scored": rows.scored,
    "rows.labelled": rows.labelled,
    "rows.documents": rows.documents,
    "rows.needles": rows.needles,
}
READERS: dict[str, Reader] = {
    "wikipedia.leads": wikipedia.leads,
    "wikipedia.descriptions": wikipedia.descriptions,
    "wikipedia.topics": wikipedia.topics,
    "docstrings.pairs": docstrings.pairs,
    "docstrings.packages": docstrings.packages,
    "botocore.operations": botocore.operations,
    "weaknesses.pairs": weaknesses.pairs,
    "encyclopedia.articles": encyclopedia.articles,
    "gettext.pairs": gettext.pairs,
    "speeches.pairs": speeches.pairs,
    "speeches.documents": speeches.documents,
    "needles.pairs": needles.pairs,
    "beir.pairs": beir.pairs,
    "human_scores.word_pairs": human_scores.word_pairs,
    "human_scores.document_matrix": human_scores.document_matrix,
    **ROW_READERS,
}


def source_files(files: tuple[str, ...], packages: Mapping[str, str]) -> list[Place]:
    """The files and data sets of a source, once the packages they come from are there in the declared version."""
    check_versions(packages)
    return [place for location in files for place in matching_places(location)]


def read_records(
    reader: str, files: Sequence[Place], options: Mapping[str, float | str]
) -> Iterator[Record | Unreadable] | Iterator[Record]:
    """Records of a source.

    Raises:
        ValueError: no reader has that name, or it does not take these options, a data set or a URL.
    """
    if reader not in READERS:
        raise ValueError(f"unknown reader {reader!r}; the readers are {', '.join(READERS)}")
    data_sets = [place.name for place in files if isinstance(place, HubDataset)]
    if data_sets and reader not in ROW_READERS:
        raise ValueError(f"reader {reader} reads files, got data set {data_sets[0]}; use {', '.join(ROW_READERS)}")
    urls = [str(place) for place in files if isinstance(place, RemoteFile)]
    if urls and reader not in (*ROW_READERS, "beir.pairs"):
        raise ValueError(f"reader {reader} reads local files, got {urls[0]}; copy it to data/sources and name that")
    try:
        return READERS[reader](files, **options)
    except TypeError as error:
        raise ValueError(f"reader {reader}: {error}; correct the source's options") from error
