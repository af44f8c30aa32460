"""Readers by the names that recipes use for them, and the sources of a recipe made ready to be read."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from stages.corpus.cleaning import SourceToRead
from stages.corpus.locations import (
    HubDataset,
    Input,
    RemoteFile,
    check_versions,
    local_folder,
    matching_inputs,
    refuse_pointer,
)
from stages.corpus.packaged import botocore, docstrings, encyclopedia, human_scores, speeches, weaknesses, wikipedia
from stages.corpus.readers import beir, documents, gettext, rows, synthetic
from stages.corpus.records import Record
from stages.corpus.text_length import WORDS, tokens_of
from stages.recipe.curate import Source

Reader = Callable[..., Iterator[Record]]

# Readers of any table, in files or in data sets of the hub; the source's options name the columns.
ROW_READERS: dict[str, Reader] = {
    "rows.pairs": rows.pairs,
    "rows.scored": rows.scored,
    "rows.labelled": rows.labelled,
    "rows.documents": rows.documents,
    "rows.parallel": rows.parallel,
    "rows.needles": rows.needles,
}
READERS: dict[str, Reader] = {
    "wikipedia.leads": wikipedia.leads,
    "wikipedia.descriptions": wikipedia.descriptions,
    "wikipedia.topics": wikipedia.topics,
    "wikipedia.translations": wikipedia.translations,
    "docstrings.pairs": docstrings.pairs,
    "docstrings.packages": docstrings.packages,
    "botocore.operations": botocore.operations,
    "weaknesses.pairs": weaknesses.pairs,
    "encyclopedia.articles": encyclopedia.articles,
    "gettext.pairs": gettext.pairs,
    "gettext.parallel": gettext.parallel,
    "speeches.pairs": speeches.pairs,
    "speeches.documents": speeches.documents,
    "needles.pairs": speeches.needles,
    "beir.pairs": beir.pairs,
    "documents.folder": documents.folder,
    "documents.sections": documents.sections,
    "synthetic.queries": synthetic.queries,
    "human_scores.word_pairs": human_scores.word_pairs,
    "human_scores.document_matrix": human_scores.document_matrix,
    **ROW_READERS,
}


def source_to_read(section: Source, seed: int, student: str) -> SourceToRead:
    """Make a source ready to be read; reading begins when its records are asked for.

    Args:
        student: location of the model in whose tokens lengths are counted, where the recipe limits tokens.
    """
    measure = WORDS if section.tokens is None else tokens_of(local_folder(student))

    def records() -> Iterator[Record]:
        return read_records(section.reader, source_files(section.files, section.packages), section.options)

    return SourceToRead(section, seed, records, measure)


def source_files(files: Sequence[str], packages: Mapping[str, str]) -> list[Input]:
    """Find the files and data sets of a source, after checking the versions of the packages that hold them."""
    check_versions(packages)
    inputs = [item for location in files for item in matching_inputs(location)]
    if not packages:  # a person's own files
        for item in inputs:
            if isinstance(item, Path):
                refuse_pointer(item)
    return inputs


def read_records(reader: str, inputs: Sequence[Input], options: Mapping[str, float | str]) -> Iterator[Record]:
    """Read the records of a source.

    Raises:
        ValueError: no reader has that name, or it does not take these options, a data set or a URL.
    """
    if reader not in READERS:
        raise ValueError(f"unknown reader {reader!r}; the readers are {', '.join(READERS)}")
    data_sets = [item.name for item in inputs if isinstance(item, HubDataset)]
    if data_sets and reader not in ROW_READERS:
        raise ValueError(f"reader {reader} reads files, got data set {data_sets[0]}; use {', '.join(ROW_READERS)}")
    urls = [str(item) for item in inputs if isinstance(item, RemoteFile)]
    if urls and reader not in (*ROW_READERS, "beir.pairs"):
        raise ValueError(f"reader {reader} reads local files, got {urls[0]}; copy it to data/sources and name that")
    try:
        return READERS[reader](inputs, **options)
    except TypeError as error:
        raise ValueError(f"reader {reader}: {error}; correct the source's options") from error
