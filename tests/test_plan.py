"""The plan of the tiny recipe against the texts that its stages really read, and the command's answers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from stages.corpus.tables import SCHEMAS, write_table
from stages.modeling.encoder import EncoderSettings, load_encoder
from stages.modeling.truncation import windows
from stages.plan import main, plan, read_sources
from stages.planning.corpus import Corpus
from stages.planning.hardware import GPUS
from stages.planning.models import Models
from stages.planning.phases import Phase
from stages.planning.texts import SourceTexts, TokenCounts
from stages.recipe.fields import TEXT_FIELDS
from stages.recipe.recipe import Recipe, read
from stages.teachers.teacher import ReadingRule
from stages.teachers.teacher_inputs import read_inputs, teacher_inputs

TINY = Path(__file__).parent / "recipes" / "tiny.yaml"
ROWS = {"train": 40, "dev": 12, "test": 8}
WORDS = ["still", "house", "copper", "wort", "spirit", "oak", "malt", "barley", "cask", "water"]


@pytest.fixture(scope="module")
def tiny() -> Recipe:
    return read(TINY)


@pytest.fixture(scope="module")
def sources(tiny: Recipe) -> dict[str, SourceTexts]:
    """Texts of every source of the recipe; some occur in several sources, some are longer than every cut."""
    generator = np.random.default_rng(0)

    def text(kind: str) -> str:
        longest = 200 if kind in ("documents", "pairs") else 8
        return " ".join(generator.choice(WORDS, size=generator.integers(1, longest)))

    shared = [text("scored") for _ in range(2)]
    found = {}
    for source in tiny.curate.sources:
        columns = {
            column: {
                split: [*shared[:2], *(text(source.kind) for _ in range(rows - 2))] for split, rows in ROWS.items()
            }
            for column in TEXT_FIELDS[source.kind]
        }
        found[source.name] = SourceTexts("made up", columns, scale=1.0)
    return found


@pytest.fixture(scope="module")
def phases(tiny: Recipe, sources: dict[str, SourceTexts]) -> dict[str, Phase]:
    models = Models({})
    counts = TokenCounts(lambda name: models.tokenizer(*name.rsplit(" ", 1)))
    planned, disk = plan(tiny, models, Corpus(sources, counts), GPUS["l4"])
    assert disk.total > 0
    return {one.stage: one for one in planned}


def write_curated(tiny: Recipe, sources: dict[str, SourceTexts], folder: Path) -> None:
    for kind, columns in TEXT_FIELDS.items():
        named = [source for source in tiny.curate.sources if source.kind == kind]
        for split, number in ROWS.items():
            rows = [
                {column: sources[source.name].columns[column][split][row] for column in columns}
                | {"id": f"{source.name}/{split}/{row}", "source": source.name, "score": 0.5, "label": "a"}
                | {"entity": "e", "language": "en", "license": "none"}
                for source in named
                for row in range(number)
            ]
            kept = [{name: row[name] for name in SCHEMAS[kind].names} for row in rows]
            write_table(folder / kind / f"{split}.parquet", kept, SCHEMAS[kind])


def test_the_teacher_reads_what_the_embed_stage_gives_it(
    tiny: Recipe, phases: dict[str, Phase], sources: dict[str, SourceTexts], tmp_path: Path
) -> None:
    """Each distinct text once a way of reading it, long ones in windows: the same texts and tokens."""
    write_curated(tiny, sources, tmp_path)
    settings = tiny.embed
    teacher = load_encoder(
        settings.teacher.path, EncoderSettings(settings.teacher.pooling, settings.prompts, settings.max_tokens)
    )
    texts: dict[ReadingRule, set[str]] = {}
    inputs = teacher_inputs(tiny.curate, tiny.adapt, tiny.evaluate)
    for _, reading, batch in read_inputs(inputs, tmp_path, tiny.embed):
        texts.setdefault(reading, set()).update(batch)
    assert len(texts) == 2, "at once, and in windows"
    tokens = 0
    for reading, of_reading in texts.items():
        cut, parts = (reading.max_tokens, reading.window_tokens), list(of_reading)
        if cut[1] < cut[0]:
            parts = windows(teacher, parts, "document", *cut)[0]
            assert len(parts) > len(of_reading)
        tokens += sum(len(ids) for ids in teacher.tokenize(parts, "document", min(cut)))
    assert phases["embed"].work.texts == sum(map(len, texts.values()))
    assert phases["embed"].work.tokens == tokens


def test_every_phase_has_its_steps_and_its_dev_texts(tiny: Recipe, phases: dict[str, Phase]) -> None:
    adapt, dev = tiny.adapt, ROWS["dev"]
    expected = {
        "extend": None,
        # A query, a document and a hard negative a pair; dev pairs at the end, and again after averaging.
        "adapt@retrieval": 6 * 8 * 3 + 2 * 2 * dev * len(adapt.retrieval.mixture),
        "adapt@text-matching": 6 * 8 * 2 + 2 * dev * len(adapt.text_matching.scored_sources),
        "adapt@clustering": 6 * 8 + dev,
        "adapt@classification": 6 * 4 * 9 + dev,  # anchor, positive, 7 negatives
    }
    assert list(phases) == ["embed", "distill", *expected]
    for name, texts in expected.items():
        assert texts in (None, phases[name].work.texts), name
    assert phases["distill"].work.tokens > 1024 * 0.8 * (tiny.distill.training.steps + tiny.distill.continued_steps)
    for one in phases.values():
        assert 0 < one.work.flops <= one.work.computed
        assert 0 < one.memory.total < GPUS["l4"].memory


def test_a_source_of_given_size_is_not_read(tiny: Recipe) -> None:
    given = {source.name: 1000 for source in tiny.curate.sources}
    found = read_sources(tiny, given, 20)
    assert {source.counted for source in found.values()} == {"given"}
    assert sum(found["wikipedia"].rows(split) for split in ROWS) == 1000
    with pytest.raises(ValueError, match="say how long those are: --tokens-per-text N"):
        read_sources(tiny, given, None)
    with pytest.raises(ValueError, match=r"--rows: \['gooaq'\] are not sources of the recipe"):
        read_sources(tiny, {"gooaq": 5}, 20)


def only(tiny: Recipe, **changed: Any) -> Recipe:
    """The recipe with one small source."""
    source = next(source for source in tiny.curate.sources if source.name == "simlex").model_copy(update=changed)
    return tiny.model_copy(update={"curate": tiny.curate.model_copy(update={"sources": (source,)})})


def test_a_source_is_read_unless_curate_has_left_this_very_one(
    tiny: Recipe, sources: dict[str, SourceTexts], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = read_sources(only(tiny), {}, None)["simlex"]
    assert found.counted == "read and cleaned now"
    assert sum(found.rows(split) for split in ROWS) == 998
    write_curated(tiny, sources, Path("data/curated"))
    Path("data/curated/counts.json").write_text("{}")
    values = YAML(typ="safe").load(TINY)
    locked = {"seed": tiny.seed, "curate": {"sources": values["curate"]["sources"]}}
    YAML().dump({"stages": {"curate": {"params": {"params.yaml": locked}}}}, Path("dvc.lock"))
    built = read_sources(only(tiny), {}, None)["simlex"]
    assert built.counted == "data/curated"
    assert [built.rows(split) for split in ROWS] == list(ROWS.values())
    assert read_sources(only(tiny, max_rows=50), {}, None)["simlex"].counted == "read and cleaned now"
    other_seed = only(tiny).model_copy(update={"seed": 3})
    assert read_sources(other_seed, {}, None)["simlex"].counted == "read and cleaned now"


def test_a_source_out_of_reach_says_what_would_do(tiny: Recipe) -> None:
    with pytest.raises(FileNotFoundError, match=r"source simlex: .*--rows simlex=N --tokens-per-text N"):
        read_sources(only(tiny, files=("no/such/file.txt",)), {}, None)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str | int | None:
    monkeypatch.setattr("sys.argv", ["plan", str(TINY), "--device", "a100", *arguments])
    try:
        main()
    except SystemExit as end:
        return end.code
    return None


@pytest.fixture
def given(tiny: Recipe) -> list[str]:
    """Sizes for every source, so that nothing is read."""
    return [
        *(word for source in tiny.curate.sources for word in ("--rows", f"{source.name}=400")),
        *("--tokens-per-text", "20"),
    ]


def test_the_page_and_the_same_as_json(
    given: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *given) is None
    page = capsys.readouterr().out
    assert page.startswith("stillhouse-tiny, 1 process(es) on A100 SXM 80 GB: 19.5 TFLOP/s in float32")
    assert run(monkeypatch, *given, "--json", "--utilisation", "0.5") is None
    found = json.loads(capsys.readouterr().out)
    assert found["device"]["utilisation"] == 0.5
    assert found["sources"]["simlex"] == {"train": 160, "dev": 40, "test": 200, "counted": "given"}
    stages = [one["stage"] for one in found["phases"]]
    assert stages == [line.split()[0] for line in page.splitlines()[4 : 4 + len(stages)]]


def test_faults_are_answered_in_a_line(given: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    answer = run(monkeypatch, "--rows", "gooaq=5", "--tokens-per-text", "9")
    assert str(answer).startswith("error: --rows: ['gooaq'] are not sources")
    assert "no finished stage" in str(run(monkeypatch, *given, "--check"))
    assert run(monkeypatch, "--rows", "wikipedia=many") == 2
    assert run(monkeypatch, "--model", "teacher") == 2
