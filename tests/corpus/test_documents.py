"""Folders of documents: sections of every format, and the pairs that are made from their structure."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from stages.corpus.readers.documents import folder, sections
from stages.corpus.readers.sections import TextSection, read_sections
from stages.corpus.records import Unreadable

COPPER = ["A copper still heats the wash.", "The vapour rises."]
EXPECTED = [TextSection(("Stills",), ["About stills."]), TextSection(("Stills", "Copper"), COPPER)]


def written(tmp_path: Path, name: str, text: str | bytes) -> Path:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


MARKDOWN = """---
layout: page
---
# Stills

About
[stills](https://example.com).

## Copper

A `copper` still heats the wash.

```python
code()
```

- The vapour rises.
"""
HTML = """<html><head><title>x</title><script>no()</script></head><body><nav><p>Home</p></nav>
<h1>Stills</h1><p>About <b>stills</b>.</p><h2>Copper</h2><ul><li><p>A copper still heats the wash.</p></li>
<li>The vapour rises.</li></ul><pre>code()</pre><footer><p>2026</p></footer></body></html>"""
RST = """Stills
======

About stills.

Copper
------

A :ref:`copper <metal>` still heats the wash.

.. unknown-directive:: x

The vapour rises.

.. code:: python

   code()
"""


@pytest.mark.parametrize(("name", "text"), [("a.md", MARKDOWN), ("a.HTML", HTML), ("a.htm", HTML), ("a.rst", RST)])
def test_formats_give_the_same_sections(tmp_path: Path, name: str, text: str) -> None:
    assert read_sections(written(tmp_path, name, text)) == EXPECTED


def test_headings_that_are_underlined_and_a_level_that_is_skipped(tmp_path: Path) -> None:
    path = written(tmp_path, "a.md", "Stills\n===\n\none\n\n### Deep\n\ntwo\n\n## Wide\n\nthree\n")
    assert [section.headings for section in read_sections(path)] == [
        ("Stills",),
        ("Stills", "Deep"),
        ("Stills", "Wide"),
    ]


def test_a_short_first_line_is_the_title_of_a_text(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", "All about stills\n\nThey are\nof copper.\n\nNot of tin.\n")
    assert read_sections(path) == [TextSection(("All about stills",), ["They are of copper.", "Not of tin."])]


def test_a_first_sentence_is_no_title(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", "Stills are of copper.\n\nNot of tin.\n")
    assert read_sections(path) == [TextSection((), ["Stills are of copper.", "Not of tin."])]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_encodings_are_told_apart(tmp_path: Path, encoding: str) -> None:
    sentence = "Der Kühler über dem Kessel läßt den Dampf zurück in die Blase fließen, wie früher üblich."
    path = written(tmp_path, "a.md", f"# Über Kühler\n\n{sentence}\n".encode(encoding))
    assert read_sections(path) == [TextSection(("Über Kühler",), [sentence])]


def test_word_and_pdf_files_are_converted(tmp_path: Path) -> None:
    assert [section.paragraphs for section in read_sections(word_file(tmp_path / "a.docx"))] == [["A copper still."]]
    assert "copper" in " ".join(read_sections(pdf_file(tmp_path / "a.pdf"))[0].paragraphs)


def test_a_damaged_file_is_one_rejected_row_and_the_rest_is_read(tmp_path: Path) -> None:
    files = [written(tmp_path, "a.docx", b"no zip"), written(tmp_path, "b.md", MARKDOWN)]
    first, *rest = folder(files, min_words=2)
    assert isinstance(first, Unreadable)
    assert first.text == "a.docx"
    assert rest


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.docx", b"PK\x03\x04" + b"no archive at all " * 20),
        ("a.pdf", b"%PDF-1.4\n" + b"no page at all " * 20),
        ("a.rst", b"\n".join(b" " * depth + b"* x" for depth in range(400))),
    ],
)
def test_a_file_that_its_parser_refuses_is_one_rejected_row(tmp_path: Path, name: str, content: bytes) -> None:
    (record,) = folder([written(tmp_path, name, content)])
    assert isinstance(record, Unreadable)
    assert name in record.reason


def test_an_archive_that_is_no_word_file_is_not_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.docx", "w") as archive:
        archive.writestr("inside.txt", "words of another file " * 20)
    (record,) = folder([tmp_path / "a.docx"])
    assert isinstance(record, Unreadable)


def test_text_of_a_page_outside_of_paragraphs_is_kept_and_signs_beside_headings_are_not(tmp_path: Path) -> None:
    page = """<title>x</title><header><p>Menu</p></header><main><header><h1>Stills<a href="#s">#</a></h1></header>
    <div>About <b>stills</b>.<p>They are of copper.</p>They shine.</div></main><footer>2026</footer>"""
    expected = [TextSection(("Stills",), ["About stills.", "They are of copper.", "They shine."])]
    assert read_sections(written(tmp_path, "a.html", page)) == expected


def test_html_inside_of_markdown_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, "a.md", '<h1 align="center">Stills</h1>\n\n<p>About stills.</p>\n\nOf copper.\n')
    assert read_sections(path) == [TextSection(("Stills",), ["About stills.", "Of copper."])]


def test_a_long_paragraph_is_cut_between_sentences(tmp_path: Path) -> None:
    path = written(tmp_path, "a.md", "One two three four. Five six seven. Eight nine ten eleven.\n")
    assert [row["text"] for row in sections([path], max_words=8, min_words=4)] == [
        "One two three four. Five six seven.",
        "Eight nine ten eleven.",
    ]


def test_a_number_of_a_list_asks_for_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, "a.md", "9. Copper stills hold heat for very long.\n")
    path_of_text = written(tmp_path, "b.txt", "9. Copper stills hold heat for very long.\n")
    assert list(folder([path, path_of_text], min_words=4)) == []


def test_letters_of_scripts_without_spaces_count_as_words(tmp_path: Path) -> None:
    sentence, rest = "銅の蒸留器は熱を伝える。", "香りも良くなる。"
    path = written(tmp_path, "a.md", f"# 蒸留器\n\n{sentence}\n\n{sentence}{rest}\n")
    made = [(row["query"], row["document"]) for row in folder([path], max_words=18, min_words=6)]
    assert made == [("蒸留器", sentence), (sentence, rest)]


def test_headings_ask_for_their_section_and_first_sentences_for_the_rest(tmp_path: Path) -> None:
    text = "# Copper stills\n\nOne two three four.\n\nStills hold heat. Copper stills shine for years.\n"
    path = written(tmp_path, "manual/a.md", text)
    entity = "/".join(path.parts[-3:])
    assert list(folder([path], max_words=8, min_words=4)) == [
        {"entity": entity, "query": "Copper stills", "document": "One two three four.", "origin": "heading"},
        {"entity": entity, "query": "Stills hold heat.", "document": "it shine for years.", "origin": "first-sentence"},
    ]


def test_a_heading_that_is_a_question_asks_alone(tmp_path: Path) -> None:
    asked = "\u6383\u9664\u306f\uff1f"
    text = f"# Stills\n\n## How do I clean it?\n\nWith water and soap.\n\n## {asked}\n\nWith a soft brush.\n"
    made = [(row["query"], row["origin"]) for row in folder([written(tmp_path, "a.md", text)], min_words=2)]
    assert made == [("How do I clean it?", "question-heading"), (asked, "question-heading")]


def test_sections_are_cut_between_paragraphs_and_short_ones_left_out(tmp_path: Path) -> None:
    text = "# A\n\n" + "word " * 5 + "\n\n" + "more " * 5 + "\n\n" + "long " * 12 + "\n\n# B\n\ntiny\n"
    texts = [row["text"] for row in sections([written(tmp_path, "a.md", text)], max_words=8, min_words=4)]
    assert texts == [
        "A\n" + " ".join(["word"] * 5),
        "A\n" + " ".join(["more"] * 5),
        "A\n" + " ".join(["long"] * 8),
        "A\n" + " ".join(["long"] * 4),
    ]


def test_a_heading_is_masked_where_soft_hyphens_stand_in_it(tmp_path: Path) -> None:
    text = "# Condenser\n\nOne two three four.\n\nIt holds cold water. A con\u00addenser cools\u200b it.\n"
    _, second = folder([written(tmp_path, "still.md", text)], max_words=8, min_words=4)
    assert (second["query"], second["document"]) == ("It holds cold water.", "A it cools it.")


def test_without_the_extra_the_message_names_it(tmp_path: Path) -> None:
    path = word_file(tmp_path / "a.docx")
    program = (
        "import sys; sys.modules['markitdown'] = None; from pathlib import Path\n"
        "from stages.corpus.readers.sections import read_sections\n"
        f"read_sections(Path({str(path)!r}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "need the extra `documents`" in done.stderr


def word_file(path: Path) -> Path:
    """Write the least Word file that has a paragraph."""
    types = (
        '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="rels" '
        'ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Override '
        'PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-officedocument.'
        'wordprocessingml.document.main+xml"/></Types>'
    )
    relations = (
        '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="r1" '
        'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" '
        'Target="word/document.xml"/></Relationships>'
    )
    body = (
        '<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body><w:p><w:r>'
        "<w:t>A copper still.</w:t></w:r></w:p></w:body></w:document>"
    )
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (("[Content_Types].xml", types), ("_rels/.rels", relations), ("word/document.xml", body)):
            archive.writestr(name, content)
    return path


def pdf_file(path: Path) -> Path:
    """Write the least PDF file that has a line of text."""
    stream = b"BT /F1 12 Tf 72 720 Td (A copper still heats the wash.) Tj ET"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
        b"/Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    content, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        places.append(len(content))
        content += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    start = len(content)
    content += b"xref\n0 6\n0000000000 65535 f \n" + table
    path.write_bytes(content + b"trailer << /Size 6 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % start)
    return path
