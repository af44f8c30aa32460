"""How the files that a person brings are read: the reader and its options, with the columns that were understood."""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stages.corpus.locations import opened
from stages.corpus.readers.files import rows_of_file
from stages.corpus.records import Record
from stages.corpus.sources import read_records
from stages.inspection.columns import Column, Roles, are_alike, column_facts, find_roles
from stages.inspection.file_formats import TABLES, FileFormat, format_of, suffix_of
from stages.inspection.splits import LEAST_ROWS
from stages.inspection.statistics import sample

DOCUMENT_SUFFIXES = (".txt", ".md", ".html", ".htm", ".rst", ".docx", ".pdf")
# Names of the reader's options, by the role of a column.
_OPTIONS: dict[str, dict[str, str]] = {
    "pairs": {"query": "query", "document": "document", "entity": "entity"},
    "scored": {"query": "text_a", "document": "text_b", "score": "score"},
}


@dataclass(frozen=True)
class Reading:
    """How files are read as one source."""

    files: tuple[Path, ...]
    reader: str
    options: Mapping[str, str | float]
    description: str
    roles: Roles
    records: Callable[[], Iterator[Record]]
    columns: Mapping[str, Column]

    @property
    def is_alike(self) -> bool:
        """Whether the two texts of a pair say the same, so that text matching may learn from them."""
        return self.reader == "gettext.pairs" or (self.roles.kind == "pairs" and are_alike(self.roles.columns))


def reading_of(paths: Sequence[Path], given: Mapping[str, str], encoding: str | None, delimiter: str | None) -> Reading:
    """Find how files are read.

    Raises:
        FileNotFoundError: a path is not there.
        ValueError: the files are of no known format, or of several.
    """
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path}: there is no such file in {Path.cwd()}; correct the path")
    if any((path / "corpus.jsonl").is_file() for path in paths):
        return _beir(paths[0])
    files = sorted(set(itertools.chain.from_iterable(map(_files, paths))))
    suffixes = {suffix_of(file) for file in files}
    if suffixes and suffixes <= {".po", ".mo"}:
        return _generated(files, "gettext.pairs", f"{len(files)} message catalogue(s) of gettext")
    if suffixes & set(DOCUMENT_SUFFIXES) and not suffixes & set(TABLES):
        documents = [file for file in files if suffix_of(file) in DOCUMENT_SUFFIXES]
        about = f"{len(documents)} documents; questions are made of headings and first sentences"
        return _generated(documents, "documents.folder", about + _left_out(files, documents))
    tables = [file for file in files if suffix_of(file) in TABLES]
    if not tables:
        found = ", ".join(suffix or "a name without an ending" for suffix in sorted(suffixes))
        raise ValueError(
            f"{paths[0]}: got {found or 'an empty folder'}, expected a table ({', '.join(TABLES)}), .po "
            f"catalogues, a BEIR folder, or a folder of documents ({', '.join(DOCUMENT_SUFFIXES)})"
        )
    reading = _table(tables, given, encoding, delimiter)
    return replace(reading, description=reading.description + _left_out(files, tables))


def _files(path: Path) -> list[Path]:
    """List a file, or the files below a folder without those that are hidden."""
    found = [path] if path.is_file() else path.rglob("*")
    return [
        file for file in found if file.is_file() and not any(part[0] == "." for part in file.relative_to(path).parts)
    ]


def _left_out(files: Sequence[Path], kept: Sequence[Path]) -> str:
    others = sorted({suffix_of(file) or file.name for file in set(files) - set(kept)})
    return f"; {len(files) - len(kept)} other files are left out ({', '.join(others[:5])})" if others else ""


def _table(files: Sequence[Path], given: Mapping[str, str], encoding: str | None, delimiter: str | None) -> Reading:
    formats = [format_of(file, encoding, delimiter) for file in files]
    first = formats[0]
    for file, other in zip(files, formats, strict=True):
        if (other.columns, other.written) != (first.columns, first.written):
            raise ValueError(f"{file}: differs in format or columns from {files[0]}; give files of one format at once")

    def records() -> Iterator[Record]:
        return itertools.chain.from_iterable(rows_of_file(file, first.columns, first.written) for file in files)

    rows = sample(records())
    if len(rows) < LEAST_ROWS:
        raise ValueError(
            f"{files[0]}: got {len(rows)} readable rows with the columns {', '.join(first.columns)}, expected at least "
            f"{LEAST_ROWS}, a row (in JSON an object) for each text or question; bring more rows"
        )
    facts = column_facts(rows, list(dict.fromkeys(itertools.chain.from_iterable(rows))))
    roles = find_roles(facts, given)
    described = first.description.replace("JSON", "JSON array" if _is_array(files[0]) else "JSON lines", 1)
    options = table_options(roles, first)
    kind = roles.kind
    return Reading(tuple(files), f"rows.{kind}", options, described, roles, records, facts)


def _is_array(file: Path) -> bool:
    with opened(file) as stream:
        return stream.read(64).lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"[")


def table_options(roles: Roles, written: FileFormat, kind: str | None = None) -> dict[str, str | float]:
    """Return the options of the reader of rows: columns, and how the text is written."""
    kind = kind or roles.kind
    options: dict[str, str | float] = {}
    if kind == "labelled":
        text = roles.columns.get("document") or roles.columns["query"]
        options = {"text": text, "label": roles.columns["label"]}
        options |= {"entity": roles.columns["entity"]} if "entity" in roles.columns else {}
    else:
        options = {option: roles.columns[role] for role, option in _OPTIONS[kind].items() if role in roles.columns}
    if kind == "pairs" and roles.negatives:
        options["negatives"] = ", ".join(roles.negatives)
    return options | {name: value for name, value in vars(written.written).items() if value is not None}


def labelled_options(reading: Reading) -> dict[str, str | float]:
    """Return the options with which the same table is read as labelled texts."""
    kept = {
        key: reading.options[key] for key in ("encoding", "delimiter", "quotes", "entity") if key in reading.options
    }
    roles = reading.roles.columns
    return {"text": roles.get("document") or roles["query"], "label": roles["label"], **kept}


def _beir(folder: Path) -> Reading:
    files = [folder / "corpus.jsonl", folder / "queries.jsonl", *sorted(folder.glob("qrels/*.tsv"))]
    return _generated(files, "beir.pairs", "BEIR folder")


def _generated(files: Sequence[Path], reader: str, description: str) -> Reading:
    """Describe files whose reader yields pairs without naming columns."""

    def records() -> Iterator[Record]:
        return read_records(reader, list(files), {})

    columns = {"query": "query", "document": "document", "entity": "entity"}
    roles = Roles("pairs", columns, dict.fromkeys(columns, "by the format"), ())
    return Reading(tuple(files), reader, {}, description, roles, records, {})


def quoted(values: Mapping[str, str | float] | Iterable[str]) -> str:
    """Write options or names as YAML reads them."""
    return json.dumps(values if isinstance(values, Mapping) else list(values), ensure_ascii=False)
