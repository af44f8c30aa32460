"""Plan: what a build of a recipe will take, before any of it runs: tokens, FLOPs, hours, memory, disk.

`python -m stages.plan [RECIPE]`; no stage of the pipeline. It counts the stages that run a model on many texts; curate,
mine, quantize, evaluate and promote are left out.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.recipe.fields import TEXT_FIELDS
from stages.recipe.recipe import Recipe, load

if TYPE_CHECKING:
    from stages.planning.corpus import Corpus
    from stages.planning.hardware import Hardware
    from stages.planning.models import Models
    from stages.planning.phases import Disk, Phase
    from stages.planning.student import Student
    from stages.planning.texts import SourceTexts

CURATED = Path("data/curated")
LINEAGE = Path("data/lineage")
LOCK = Path("dvc.lock")
DEVICES = ("here", "cpu", "h100", "a100", "l4")
# A plan that is further off than this from what a stage took needs other assumptions.
TOLERANCE = 0.25


def main() -> None:
    """Plan a recipe; print the plan, or hold it against the build that was made."""
    arguments = _parser().parse_args()
    params = load(arguments.recipe)
    from stages.planning.corpus import Corpus
    from stages.planning.hardware import hardware
    from stages.planning.models import Models
    from stages.planning.texts import TokenCounts

    try:
        models = Models(dict(arguments.model))
        corpus = Corpus(
            read_sources(params, dict(arguments.rows), arguments.tokens_per_text),
            TokenCounts(lambda name: models.tokenizer(*name.rsplit(" ", 1))),
        )
        device = hardware(arguments.device, params.engine.precision, params.engine.threads, arguments.utilisation)
        phases, disk = plan(params, models, corpus, device)
        if arguments.check:
            sys.exit(0 if _check(phases) else 1)
        print(_json(phases, disk, corpus, device) if arguments.json else _page(params, phases, disk, corpus, device))
    except (ValueError, FileNotFoundError, ModuleNotFoundError) as error:
        sys.exit(f"error: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m stages.plan", description=__doc__)
    parser.add_argument("recipe", nargs="?", type=Path, default=FILE, help="the recipe (default: params.yaml)")
    parser.add_argument(
        "--device", choices=DEVICES, default="here", help="what each process runs on (here: this machine, measured)"
    )
    parser.add_argument(
        "--utilisation", type=float, help="share of the peak to count on, instead of the assumption that is printed"
    )
    parser.add_argument(
        "--model",
        type=_pair,
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="read config and tokenizer of a model from a folder (where the hub is out of reach)",
    )
    parser.add_argument(
        "--rows",
        type=_count,
        action="append",
        default=[],
        metavar="SOURCE=N",
        help="take a source to have N rows instead of reading it",
    )
    parser.add_argument("--tokens-per-text", type=int, metavar="N", help="tokens of each text of the sources of --rows")
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")
    parser.add_argument("--check", action="store_true", help="compare with the seconds that the last build took")
    return parser


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not name or not value:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    return name, value


def _count(text: str) -> tuple[str, int]:
    name, value = _pair(text)
    if not value.isdigit() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of rows, got {text!r}")
    return name, int(value)


def read_sources(params: Recipe, given: Mapping[str, int], tokens: int | None) -> dict[str, "SourceTexts"]:
    """The texts of each source: of given size, else what curate left of this very source, else read and cleaned now.

    Raises:
        ValueError: sizes are given without tokens, or for a source that the recipe has not.
    """
    from stages.corpus.cleaning import Limits
    from stages.corpus.sources import read_records, source_files
    from stages.corpus.text_length import WORDS, tokens_of
    from stages.planning.texts import cleaned_texts, curated_texts, given_texts
    from stages.teachers.fingerprint import local_folder

    names = [source.name for source in params.curate.sources]
    if unknown := sorted(set(given) - set(names)):
        raise ValueError(f"--rows: {unknown} are not sources of the recipe; those are {names}")
    if given and tokens is None:
        raise ValueError("--rows gives sources without their texts; say how long those are: --tokens-per-text N")
    built = _built_sources(params.seed)
    found = {}
    for source in params.curate.sources:
        columns, splits = TEXT_FIELDS[source.kind], source.splits
        if source.name in given:
            assert tokens is not None, "checked above"
            rows = given[source.name]
            found[source.name] = given_texts(source.name, rows, tokens, splits.dev, splits.test, columns)
        elif source.model_dump(mode="json", exclude_unset=True) in built:
            found[source.name] = curated_texts(CURATED, source.name, source.kind, columns)
        else:
            origin = source.model_dump(include={"kind", "language", "license"}) | {"source": source.name}
            measure = WORDS if source.tokens is None else tokens_of(local_folder(params.distill.backbone.path))
            limits = Limits(source.lengths, splits.dev, splits.test, source.max_rows, params.seed, measure)
            try:
                records = read_records(source.reader, source_files(source.files, source.packages), source.options)
                found[source.name] = cleaned_texts(records, origin, limits, columns)
            except (FileNotFoundError, ModuleNotFoundError) as error:
                raise FileNotFoundError(
                    f"source {source.name}: {error}; to plan without its text, give its size: "
                    f"--rows {source.name}=N --tokens-per-text N"
                ) from error
    return found


def _built_sources(seed: int) -> list[dict[str, Any]]:
    """Sections of the sources as they were when curate last ran; none where it has not, or with another seed."""
    from ruamel.yaml import YAML

    if not (CURATED / "counts.json").exists() or not LOCK.exists():
        return []
    stages = YAML(typ="safe").load(LOCK.read_text(encoding="utf-8")).get("stages", {})
    locked = stages.get("curate", {}).get("params", {}).get(str(FILE), {})
    if locked.get("seed") != seed:
        return []
    sources: list[dict[str, Any]] = locked["curate"]["sources"]
    return sources


def plan(params: Recipe, models: "Models", corpus: "Corpus", device: "Hardware") -> tuple[list["Phase"], "Disk"]:
    """Every stage that is counted, in order, and the bytes that the build leaves."""
    from stages.planning.memory import embedding_memory
    from stages.planning.phases import disk, phase
    from stages.planning.steps import Totals
    from stages.planning.teacher import Teacher
    from stages.teachers.teacher_inputs import teacher_inputs

    settings, engine = params.embed, params.engine
    workers = 1 if settings.ray is None else settings.ray.workers
    if settings.teacher.kind == "endpoint":
        raise ValueError("a plan counts the teacher's work, and embed.teacher is an endpoint: its size is not known")
    pooling = settings.teacher.pooling if settings.teacher.kind == "transformer" else "mean"
    config: Any = models.config(settings.teacher.path)
    shape, kept = models.shape(config, config.num_hidden_layers, engine.precision)
    teacher = Teacher(
        name=f"{settings.teacher.path} {pooling}",
        shape=shape,
        narrowed=pooling != "mean",
        packing=engine.packing,
        batch_tokens=settings.batch_tokens,
    )
    inputs = teacher_inputs(params.curate, params.adapt, params.evaluate)
    work = teacher.work(corpus, settings, inputs)
    memory = embedding_memory(shape, kept, settings.batch_tokens)
    embed = phase("embed", work, Totals(), memory, device, engine.precision, processes=workers)
    student = _student(params, models, corpus, device)
    adapt, long = params.adapt, [params.extend] if params.extend.training.steps else []
    phases = [
        embed,
        student.distill(params.distill),
        *(student.extend(section) for section in long),
        student.retrieval(adapt.retrieval),
        student.text_matching(adapt.text_matching),
        student.clustering(adapt.clustering, adapt.classification.sources),
        student.classification(adapt.classification),
    ]
    ranks = [one.lora.rank for one in (adapt.retrieval, adapt.text_matching, adapt.clustering, adapt.classification)]
    trained = student.trained(ranks, phases=2 + len(long))
    return phases, disk(work.texts, shape.hidden_size, student.shape.parameters, trained)


def _student(params: Recipe, models: "Models", corpus: "Corpus", device: "Hardware") -> "Student":
    from stages.planning.student import Student
    from stages.training.loop import EngineSettings

    settings = params.distill
    config, num_layers = models.student(settings.backbone, settings.rope_theta)
    shape, kept = models.shape(config, num_layers, params.engine.precision)
    return Student(
        name=f"{settings.backbone.path} {settings.pooling}",
        shape=shape,
        kept=kept,
        narrowed=settings.pooling != "mean",
        prompts=settings.prompts,
        frozen_embeddings=settings.freeze_token_embeddings,
        corpus=corpus,
        engine=EngineSettings(**params.engine.model_dump()),
        device=device,
        seed=params.seed,
    )


def _page(params: Recipe, phases: list["Phase"], disk: "Disk", corpus: "Corpus", device: "Hardware") -> str:
    from stages.planning import report

    sources = report.sources_table(corpus.sources)
    head = f"{params.name}, {params.engine.processes} process(es)"
    return "\n\n".join(
        [
            f"{head} {report.phase_table(phases, device, params.engine.precision)}",
            report.memory_table(phases),
            report.disk_lines(disk),
            sources,
        ]
    )


def _json(phases: list["Phase"], disk: "Disk", corpus: "Corpus", device: "Hardware") -> str:
    return json.dumps(
        {
            "device": asdict(device),
            "phases": [asdict(one) | {"device_hours": one.device_hours} for one in phases],
            "disk": asdict(disk) | {"total": disk.total},
            "sources": {
                name: {split: source.rows(split) for split in ("train", "dev", "test")} | {"counted": source.counted}
                for name, source in corpus.sources.items()
            },
        },
        indent=2,
    )


def _check(phases: list["Phase"]) -> bool:
    from stages.planning.measured import measured_stages
    from stages.planning.report import comparison
    from stages.tracking.runs import tracking_uri

    text, good = comparison(phases, measured_stages(LINEAGE, tracking_uri()), TOLERANCE)
    print(text)
    return good


if __name__ == "__main__":
    main()
