"""Readers of text sources, each over a small file of its own format."""

import bz2
import gzip
import json
from pathlib import Path
from typing import Any

import polib
import pytest
import sklearn

from stages.corpus.cleaning import split_of
from stages.corpus.locations import check_versions, files_digest, matching_files, resolve
from stages.corpus.packaged import botocore, docstrings, encyclopedia, human_scores, speeches, weaknesses, wikipedia
from stages.corpus.records import Unreadable
from stages.corpus.sources import READERS, read_records, source_files
from tests.corpus.builders import source

# Wikipedia


@pytest.mark.parametrize(
    ("text", "title", "masked"),
    [
        ("The hat is a hat. Hats are many.", "Hat", "The it is a it. Hats are many."),
        ("Newton and Isaac Newton wrote.", "Isaac Newton", "it and it wrote."),
        ("Mercury is near. The planet turns.", "Mercury (planet)", "it is near. The planet turns."),
        ("Today C++ is used; C is not.", "C++", "Today it is used; C is not."),
        ("In Washington, D.C. or Washington.", "Washington, D.C.", "In it or it."),
        ("A new deal for New York.", "New York", "A new deal for it."),
        ("Theory of mind, and of Mind.", "Theory of Mind", "it, and of it."),
        ("Cats chatter.", "Cat", "Cats chatter."),
    ],
)
def test_titles_are_masked(text: str, title: str, masked: str) -> None:
    assert wikipedia.mask_title(text, title) == masked


@pytest.fixture
def articles(tmp_path: Path) -> Path:
    entries = [
        ("Hat", "A hat is worn. Each hat warms.", "Head covering", "Everyday life"),
        ("Mercury (planet)", "Mercury is small. Mercury is near.", "First planet", "Uncategorized"),
        ("Nothing", "No more.", None, "Philosophy"),
    ]
    values = {
        title: {"title": title, "extract": extract, "description": description, "topic": topic}
        for title, extract, description, topic in entries
    }
    file = tmp_path / "articles.json"
    file.write_text(json.dumps(values))
    return file


def test_wikipedia_records(articles: Path) -> None:
    assert list(wikipedia.leads([articles])) == [
        {"entity": "Hat", "query": "A hat is worn.", "document": "Each it warms.", "origin": "first-sentence"},
        {
            "entity": "Mercury (planet)",
            "query": "Mercury is small.",
            "document": "it is near.",
            "origin": "first-sentence",
        },
        {"entity": "Nothing", "query": "No more.", "document": "", "origin": "first-sentence"},
    ]
    assert list(wikipedia.descriptions([articles])) == [
        {"entity": "Hat", "query": "Head covering", "document": "Hat"},
        {"entity": "Mercury (planet)", "query": "First planet", "document": "Mercury"},
        {"entity": "Nothing", "query": "", "document": "Nothing"},
    ]
    assert list(wikipedia.topics([articles])) == [
        {"entity": "Hat", "text": "Each it warms.", "label": "Everyday life"},
        {"entity": "Nothing", "text": "", "label": "Philosophy"},
    ]


def test_leads_of_two_languages_about_the_same_title(articles: Path, tmp_path: Path) -> None:
    french = {"title": "Hat", "extract": "Un chapeau se porte.", "description": None, "topic": "Vie"}
    (tmp_path / "french.json").write_text(json.dumps({"Hat": french, "Chat": {**french, "title": "Chat"}}))
    assert list(wikipedia.translations([articles, tmp_path / "french.json"])) == [
        {"entity": "Hat", "text": "A hat is worn. Each hat warms.", "translation": "Un chapeau se porte."}
    ]


# Docstrings

MODULE = '''"""Of the module."""

def boil(wort):
    """Boil the wort.

    It takes
    an hour.

    Examples
    --------
    >>> boil(wort)
    >>> for one in wort:
    ...     boil(one)
    """
    def inner():
        """Not public."""

def _cool(wort):
    """Not public."""

def silent(wort):
    return wort

class Still:
    """A still, of
    copper."""

    async def run(self):
        """Run it.

        Slowly.
        """

    def _stop(self):
        """Not public."""
'''


def test_docstrings_give_summary_and_body(tmp_path: Path) -> None:
    file = tmp_path / "site-packages" / "distillery" / "copper.py"
    file.parent.mkdir(parents=True)
    file.write_text(MODULE)
    hidden = tmp_path / "site-packages" / "distillery" / "tests" / "test_copper.py"
    hidden.parent.mkdir()
    hidden.write_text(MODULE)
    entity = "distillery.copper"
    assert list(docstrings.pairs([file, hidden])) == [
        {
            "entity": entity,
            "query": "Boil the wort.",
            "document": "It takes an hour. Examples",
            "origin": "first-sentence",
        },
        {"entity": entity, "query": "A still, of copper.", "document": "", "origin": "first-sentence"},
        {"entity": entity, "query": "Run it.", "document": "Slowly.", "origin": "first-sentence"},
    ]
    assert [record["label"] for record in docstrings.packages([file])] == ["distillery"] * 3


# Botocore


@pytest.mark.parametrize("compressed", [True, False])
def test_botocore_operations(tmp_path: Path, compressed: bool) -> None:
    model = {
        "metadata": {"serviceId": "Still"},
        "operations": {
            "Run": {"documentation": "<p>Runs a <b>still</b>. It&apos;s  hot &amp; <i>slow</i>.</p><p>Ends.</p>"},
            "Stop": {"documentation": "<p>Stops it.</p>"},
            "List": {},
        },
    }
    file = tmp_path / ("service-2.json.gz" if compressed else "service-2.json")
    content = json.dumps(model).encode()
    file.write_bytes(gzip.compress(content) if compressed else content)
    assert list(botocore.operations([file])) == [
        {
            "entity": "Still",
            "query": "Runs a still .",
            "document": "It's hot & slow . Ends.",
            "origin": "first-sentence",
        },
        {"entity": "Still", "query": "Stops it.", "document": "", "origin": "first-sentence"},
        {"entity": "Still", "query": "", "document": "", "origin": "first-sentence"},
    ]


# Scores by people


def test_word_pairs_that_share_a_word_share_a_split(tmp_path: Path) -> None:
    file = tmp_path / "words.tsv"
    chains = [f"word{chain}x{link}\tWord{chain}x{link + 1}\t{link}.5\n" for chain in range(30) for link in range(4)]
    file.write_text("# word\tword\tscore\n\n" + "".join(chains[::2] + chains[1::2]))
    records = list(human_scores.word_pairs([file], scale=10.0))
    assert len(records) == 120
    assert records[0] == {"entity": "word0x0", "text_a": "word0x0", "text_b": "Word0x1", "score": 0.05}
    assert len({record["entity"] for record in records}) == 30

    read = source(records, "scored", splits={"dev": 0.2, "test": 0.3})
    words: dict[str, set[str]] = {"train": set(), "dev": set(), "test": set()}
    for record in records:
        words[split_of(record["entity"], read)] |= {record[field].lower() for field in ("text_a", "text_b")}
    assert min(map(len, words.values())) > 0
    assert not words["train"] & words["dev"]
    assert not words["train"] & words["test"]
    assert not words["dev"] & words["test"]


def test_document_matrix_reads_the_upper_triangle(tmp_path: Path) -> None:
    (tmp_path / "three.cor").write_bytes("one caf\xe9\ntwo\nthree\n".encode("latin-1"))
    (tmp_path / "similarities.txt").write_text("1.0\t0.2\t0.4\n9 1.0 0.6\n9 9 1.0\n")
    files = [tmp_path / "similarities.txt", tmp_path / "three.cor"]
    expected = [("one caf\xe9", "two", 0.1), ("one caf\xe9", "three", 0.2), ("two", "three", 0.3)]
    for order in (files, files[::-1]):
        records = list(human_scores.document_matrix(order, scale=2.0, encoding="latin-1"))
        assert [(record["text_a"], record["text_b"], record["score"]) for record in records] == expected
        assert {record["entity"] for record in records} == {"three"}


# Speeches, and needles in them

SPEECH = """Fellow-Citizens of the Senate:

I greet you. [Applause] The harvest was good. It filled the barns.

Of the roads I say little. They are dry.
"""


@pytest.fixture
def speeches_folder(tmp_path: Path) -> list[Path]:
    files = [tmp_path / "1838-VanBuren-1.txt", tmp_path / "1897-McKinley-2.txt"]
    for file in files:
        file.write_text(SPEECH)
    return files


def test_speeches_in_stretches(speeches_folder: list[Path]) -> None:
    first, second, third, fourth = speeches.pairs(speeches_folder, stretch_words=12)
    assert first == {
        "entity": "1838-VanBuren-1",
        "query": "President Van Buren's message to Congress, 1838: Fellow-Citizens of the Senate: I greet you.",
        "document": "The harvest was good. It filled the barns.",
        "origin": "heading",
    }
    assert second["query"] == "President Van Buren's message to Congress, 1838: Of the roads I say little."
    assert second["document"] == "They are dry."
    assert third["query"].startswith("President McKinley's message to Congress, 1897: ")
    assert {third["entity"], fourth["entity"]} == {"1897-McKinley-2"}
    texts = [record["text"] for record in speeches.documents(speeches_folder[:1], stretch_words=12)]
    whole = "Fellow-Citizens of the Senate: I greet you. The harvest was good. It filled the barns. Of the roads "
    assert " ".join(texts) == whole + "I say little. They are dry."


def test_needles_are_planted_in_turns_and_repeatably(speeches_folder: list[Path]) -> None:
    records = list(speeches.needles(speeches_folder, stretch_words=5, seed=1))
    assert records == list(speeches.needles(speeches_folder, stretch_words=5, seed=1))
    other = list(speeches.needles(speeches_folder, stretch_words=5, seed=2))
    assert not {record["query"] for record in records} & {record["query"] for record in other}
    of_first = [record for record in records if record["entity"] == "1838-VanBuren-1"]
    assert ["pass key" in record["query"] for record in of_first] == [False, True, False, True]
    for record, stretch in zip(of_first, speeches.documents(speeches_folder[:1], stretch_words=5), strict=True):
        left = record["document"].split()
        for word in stretch["text"].split():
            left.remove(word)  # nothing of the haystack is lost
        assert 5 < len(left) < 25


# Encyclopedia

DUMP = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">
  <page><title>Still</title><ns>0</ns><revision><text>{{Infobox | name = {{nested}} }}
[[File:Still.jpg|thumb|A [[copper]] still]]
A '''still''' ({{lang|la|x}}) is used to [[distillation|distil]]
&lt;ref&gt;Smith. {{cite}}&lt;/ref&gt; wine.&lt;!-- no --&gt;
A still is of [[copper]], see [http://example.org the list].

== History ==
* a list
{| class="table"
| cell
|}
It is old &amp;amp; round. [[Category:Stills]]</text></revision></page>
  <page><title>Alembic</title><ns>0</ns><redirect title="Still" /><revision><text>#REDIRECT</text></revision></page>
  <page><title>Talk:Still</title><ns>1</ns><revision><text>Who says so? I do.</text></revision></page>
</mediawiki>"""


def test_encyclopedia_articles_lose_their_markup(tmp_path: Path) -> None:
    file = tmp_path / "dump.xml.bz2"
    file.write_bytes(bz2.compress(DUMP.encode()))
    assert list(encyclopedia.articles([file])) == [
        {
            "entity": "Still",
            "query": "A still is used to distil wine.",
            "document": "A it is of copper, see the list. It is old & round.",
            "origin": "first-sentence",
        }
    ]


# Weaknesses

CATALOGUE = """<Weakness_Catalog xmlns="http://cwe.mitre.org/cwe-7" xmlns:xhtml="http://www.w3.org/1999/xhtml"><Weaknesses>
<Weakness ID="79" Name="Cross-site Scripting" Status="Stable"><Description>Input is
not neutralized.</Description><Extended_Description><xhtml:p>There are</xhtml:p><xhtml:p>three kinds.</xhtml:p>
</Extended_Description></Weakness>
<Weakness ID="1" Name="DEPRECATED: Location" Status="Deprecated"><Description>None.</Description></Weakness>
<Weakness ID="20" Name="Improper Input" Status="Draft"><Description>Short.</Description></Weakness>
</Weaknesses></Weakness_Catalog>"""


def test_weaknesses_give_name_and_description(tmp_path: Path) -> None:
    file = tmp_path / "cwec.xml"
    file.write_text(CATALOGUE)
    assert list(weaknesses.pairs([file])) == [
        {
            "entity": "CWE-79",
            "query": "Cross-site Scripting: Input is not neutralized.",
            "document": "There are three kinds.",
            "origin": "heading",
        },
        {"entity": "CWE-20", "query": "Improper Input: Short.", "document": "", "origin": "heading"},
    ]


# By name, and where files are


def test_readers_by_name(articles: Path) -> None:
    assert list(read_records("wikipedia.leads", [articles], {})) == list(wikipedia.leads([articles]))
    with pytest.raises(ValueError, match=r"unknown reader 'wikipedia\.lead'; the readers are wikipedia\.leads, "):
        read_records("wikipedia.lead", [articles], {})
    assert set(READERS) >= {"docstrings.pairs", "botocore.operations"}


@pytest.mark.parametrize("options", [{"scael": 10.0}, {}])
def test_options_that_a_reader_does_not_take_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(
        ValueError, match=r"reader human_scores\.word_pairs: .*scale|scael.*correct the source's options"
    ):
        read_records("human_scores.word_pairs", [tmp_path / "words.tsv"], options)


def test_files_are_found_sorted_or_the_pattern_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sources" / "deep").mkdir(parents=True)
    for name in ("b.txt", "a.txt", "deep/c.txt", "d.md"):
        (tmp_path / "sources" / name).write_text(name)
    found = matching_files(f"{tmp_path}/sources/**/*.txt")
    assert [path.name for path in found] == ["a.txt", "b.txt", "c.txt"]
    monkeypatch.chdir(tmp_path)
    assert matching_files("sources/*.md") == [Path("sources/d.md")]
    with pytest.raises(FileNotFoundError, match=r"no file matches 'sources/\*\.json'"):
        matching_files("sources/*.json")
    assert files_digest(found) != files_digest(found[::-1])


def test_package_locations(tmp_path: Path) -> None:
    assert resolve("package:sklearn/utils") == str(Path(sklearn.__file__).parent / "utils")
    assert resolve("some/folder") == "some/folder"
    assert len(matching_files("package:sklearn/utils/_m*.py")) > 1
    with pytest.raises(ModuleNotFoundError, match=r"'no_such' is not installed.*pip install no-such"):
        resolve("package:no_such/file")


def test_a_package_in_another_version_is_refused() -> None:
    check_versions({"scikit-learn": sklearn.__version__})
    with pytest.raises(ValueError, match=r"scikit-learn: got version .*, the recipe declares 0\.0\.1; install it"):
        source_files(("package:sklearn/__init__.py",), {"scikit-learn": "0.0.1"})
    with pytest.raises(ModuleNotFoundError, match="no-such-package is missing; install it: pip install"):
        check_versions({"no-such-package": "1"})


# Catalogues of messages

MESSAGES = """
msgid ""
msgstr ""
"Language: pt_BR\\n"
"Content-Type: text/plain; charset=UTF-8\\n"
"Plural-Forms: nplurals=2; plural=(n > 1);\\n"

msgid "Save %(count)d files of {name}?"
msgstr "Salvar %(count)d arquivos de {name}?"

msgid "%d row"
msgid_plural "%d rows"
msgstr[0] "%d linha"
msgstr[1] "%d linhas"

#, fuzzy
msgid "Close the window"
msgstr "Abrir a janela"

msgid "Nobody translated this"
msgstr ""

#~ msgid "Gone since"
#~ msgstr "Foi-se"
"""


def test_catalogues_of_messages(tmp_path: Path) -> None:
    file = tmp_path / "messages.po"
    file.write_text(MESSAGES, encoding="utf-8")
    polib.pofile(str(file)).save_as_mofile(str(tmp_path / "messages.mo"))
    saved = {
        "entity": "Save %(count)d files of {name}?",
        "query": "Save … files of …?",
        "document": "Salvar … arquivos de …?",
        "language": "de-pt",
    }
    rows = {"entity": "%d rows", "query": "… rows", "document": "… linhas", "language": "de-pt"}
    fuzzy = Unreadable("a fuzzy translation", "Close the window | Abrir a janela")
    assert list(read_records("gettext.pairs", [file], {"messages": "de"})) == [saved, rows, fuzzy]
    compiled = list(read_records("gettext.pairs", [tmp_path / "messages.mo"], {"messages": "de"}))
    assert sorted(compiled, key=str) == sorted([saved, rows], key=str), "compiled ones hold no fuzzy ones"
    plain = {"entity": "%d rows", "text": "\u2026 rows", "translation": "\u2026 linhas", "language": "de-pt"}
    assert list(read_records("gettext.parallel", [file], {"messages": "de"}))[1:] == [plain, fuzzy]


def test_catalogues_without_a_language_or_without_messages(tmp_path: Path) -> None:
    folder = tmp_path / "sr_Latn" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    message = 'msgid "A message"\nmsgstr "Poruka"\n'
    (folder / "app.po").write_text(message)
    (found,) = read_records("gettext.pairs", [folder / "app.po"], {})
    assert found["language"] == "en-sr"
    (tmp_path / "app.po").write_text(message)
    with pytest.raises(ValueError, match=r"app\.po: names no language; put it into LANGUAGE/LC_MESSAGES"):
        list(read_records("gettext.pairs", [tmp_path / "app.po"], {}))
    for name, content in (("bad.po", "no catalogue"), ("bad.mo", "no catalogue")):
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match=r"bad\.[pm]o: no message catalogue, or a damaged one"):
            list(read_records("gettext.pairs", [tmp_path / name], {}))
