"""Phases of the tiny recipe against the texts that its stages really read."""

from pathlib import Path

import numpy as np
import pytest

from stages.corpus.tables import SCHEMAS, write_table
from stages.modeling.encoder import EncoderSettings, load_encoder
from stages.modeling.tokenization import load_tokenizer
from stages.modeling.truncation import windows
from stages.objectives.pairs import ContrastiveObjective
from stages.planning.phases import Phase, TrainingPhases, embed_phase, in_windows
from stages.planning.sources import SourceTexts, TextLengths
from stages.recipe.adapt import Adapt
from stages.recipe.fields import TEXT_FIELDS
from stages.recipe.recipe import Recipe, read
from stages.teachers.teacher import ReadingRule
from stages.teachers.teacher_inputs import read_inputs, teacher_inputs

TINY = Path(__file__).parents[1] / "recipes" / "tiny.yaml"
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

    shared, number = [text("scored"), text("scored")], sum(ROWS.values())
    return {
        source.name: SourceTexts(
            source.kind,
            ROWS,
            {name: [*shared, *(text(source.kind) for _ in range(number - 2))] for name in TEXT_FIELDS[source.kind]}
            | ({"negatives": [shared[0], text("pairs"), text("pairs")]} if source.kind == "pairs" else {}),
        )
        for source in tiny.curate.sources
    }


def write_curated(tiny: Recipe, sources: dict[str, SourceTexts], folder: Path) -> None:
    for kind, columns in TEXT_FIELDS.items():
        start = 0
        for split, number in ROWS.items():
            rows = [
                {column: sources[source.name].texts[column][row] for column in columns}
                | {"id": f"{source.name}/{row}", "source": source.name, "score": 0.5, "label": "a", "origin": "given"}
                | {"entity": "e", "language": "en", "license": "none"}
                | {"negatives": [] if row else sources[source.name].texts.get("negatives")}
                for source in tiny.curate.sources
                if source.kind == kind
                for row in range(start, start + number)
            ]
            schema = SCHEMAS[kind]
            table = [{name: row[name] for name in schema.names} for row in rows]
            write_table(folder / kind / f"{split}.parquet", table, schema)
            start += number


def lengths(recipe: Recipe, sources: dict[str, SourceTexts], prompts: dict[str, str]) -> TextLengths:
    return TextLengths(sources, lambda: load_tokenizer(recipe.distill.backbone.path), prompts)


def num_texts(phase: Phase) -> float:
    return sum(read.times * (read.num_texts or read.lengths.size) for read in (*phase.reads, phase.evaluations))


def num_tokens(phase: Phase) -> float:
    return sum(read.times * read.lengths.sum() for read in phase.reads)


def test_the_teacher_reads_what_the_embed_stage_gives_it(
    tiny: Recipe, sources: dict[str, SourceTexts], tmp_path: Path
) -> None:
    """Each distinct text once for each rule, explicit negatives too, long texts in windows: the same texts, tokens."""
    write_curated(tiny, sources, tmp_path)
    inputs, embed = teacher_inputs(tiny.curate, tiny.adapt, tiny.evaluate), tiny.embed
    settings = EncoderSettings("mean", embed.prompts, embed.max_tokens)
    teacher = load_encoder(tiny.distill.backbone.path, settings)
    texts: dict[ReadingRule, set[str]] = {}
    for _, rule, batch in read_inputs(inputs, tmp_path, embed):
        texts.setdefault(rule, set()).update(batch)
    assert len(texts) == 2, "at once, and in windows"
    tokens = 0
    for rule, of_rule in texts.items():
        parts = windows(teacher, list(of_rule), "document", rule.max_tokens, rule.window_tokens)[0]
        assert (len(parts) > len(of_rule)) == (rule.window_tokens < rule.max_tokens)
        tokens += teacher.tokenize(parts, "document", min(rule.max_tokens, rule.window_tokens)).lengths.sum()
    planned = embed_phase(inputs, embed, lengths(tiny, sources, embed.prompts))
    assert num_texts(planned) == sum(map(len, texts.values()))
    assert num_tokens(planned) == tokens


def test_a_source_of_which_a_sample_is_read_counts_whole(tiny: Recipe, sources: dict[str, SourceTexts]) -> None:
    inputs = [one for one in teacher_inputs(tiny.curate, tiny.adapt, tiny.evaluate) if one.kind == "labelled"]
    larger = {
        name: SourceTexts(source.kind, {split: 10 * rows for split, rows in source.rows.items()}, source.texts)
        for name, source in sources.items()
    }
    one, ten = (
        embed_phase(inputs, tiny.embed, lengths(tiny, found, tiny.embed.prompts)) for found in (sources, larger)
    )
    assert num_tokens(ten) == pytest.approx(10 * num_tokens(one))


def test_windows_by_hand() -> None:
    in_four = ReadingRule("", max_tokens=100, window_tokens=4)
    assert in_windows(np.array([3, 4, 9]), in_four, around=1).tolist() == [4, 4, 4, 3, 3]
    assert in_windows(np.array([3, 400]), ReadingRule("", 100, 100), around=1).tolist() == [3, 100]


@pytest.mark.parametrize("processes", [1, 2])
def test_every_phase_has_its_steps_and_its_dev_texts(
    tiny: Recipe, sources: dict[str, SourceTexts], processes: int
) -> None:
    phases = TrainingPhases(lengths(tiny, sources, tiny.distill.prompts), processes)
    adapt, dev, rows = tiny.adapt, ROWS["dev"], 6 * 8 * processes  # 6 steps of 8 rows on each process
    expected = {
        # A query, a document and a hard negative a pair; dev pairs at the end, and again after averaging.
        "adapt@retrieval": rows * 3 + 2 * 2 * dev * len(adapt.retrieval.mixture),
        "adapt@text-matching": rows * 2 + 2 * dev * len(adapt.text_matching.scored_sources),
        "adapt@clustering": rows + dev,
        "adapt@classification": rows / 2 * 9 + dev,  # 4 rows of an anchor, its positive, 7 negatives
    }
    assert {phase.stage: num_texts(phase) for phase in phases.adapters(adapt)} == pytest.approx(expected)
    steps = tiny.distill.training.steps + tiny.distill.continued_steps
    assert num_tokens(phases.distill(tiny.distill)) == pytest.approx(1024 * steps * processes)
    assert phases.extend(tiny.extend).batch_tokens > 0


def test_absent_tasks_have_no_phase_and_clustering_without_labels_no_dev_texts(
    tiny: Recipe, sources: dict[str, SourceTexts]
) -> None:
    values = tiny.adapt.model_dump(by_alias=True)
    values |= {"retrieval": {"mixture": []}, "classification": {"sources": []}}
    values["text-matching"] |= {"scored_sources": [], "scored_share": 1.0}
    phases = TrainingPhases(lengths(tiny, sources, tiny.distill.prompts), 1)
    found = {phase.stage: num_texts(phase) for phase in phases.adapters(Adapt.model_validate(values))}
    assert found == pytest.approx({"adapt@text-matching": 6 * 8 * 2, "adapt@clustering": 6 * 8})


def test_a_joint_objective_reads_pairs(tiny: Recipe, sources: dict[str, SourceTexts]) -> None:
    training = tiny.distill.training.model_copy(update={"batch_size": 8, "batch_tokens": None})
    section = tiny.distill.model_copy(update={"objective": "info_nce", "training": training})
    phase = TrainingPhases(lengths(tiny, sources, tiny.distill.prompts), 1).distill(section)
    steps = training.steps + section.continued_steps
    assert sum(read.times * read.lengths.size for read in phase.reads) == pytest.approx(steps * 8 * 2)
    assert phase.objective is ContrastiveObjective
