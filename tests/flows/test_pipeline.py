"""What DVC says of a pipeline, read: order, what is stale and why, what each stage needs."""

from pathlib import Path

from flows.pipeline import Needs, Stage, check_out, in_order, needs_of, parse_dag, parse_status
from flows.schedule import possibly_running

ROOT = Path(__file__).resolve().parents[2]
DOT = """\
strict digraph {
"curate";
"adapt@retrieval";
"adapt@clustering";
"evaluate";
"adapt@retrieval" -> "evaluate";
"adapt@clustering" -> "evaluate";
"curate" -> "adapt@retrieval";
"curate" -> "adapt@clustering";
}
"""


def test_the_graph_gives_every_stage_and_what_it_needs() -> None:
    needs = parse_dag(DOT)
    assert needs == {
        "curate": (),
        "adapt@retrieval": ("curate",),
        "adapt@clustering": ("curate",),
        "evaluate": ("adapt@retrieval", "adapt@clustering"),
    }
    assert in_order({"b": ["a"], "c": [], "a": []}) == ["c", "a", "b"]


def test_what_is_only_not_here_makes_nothing_stale() -> None:
    report = {
        "curate": [{"changed outs": {"data/curated": "deleted"}}],
        "adapt": [{"changed deps": {"data/curated/train.parquet": "deleted"}}, {"changed outs": {"data/a": "deleted"}}],
    }
    assert parse_status(report, {"deleted"}) == {}


def test_reasons_name_what_changed() -> None:
    report = {
        "curate": [
            {"changed deps": {"params.yaml": {"seed": "modified"}, "data/sources": "deleted"}},
            {"changed outs": {"data/curated": "not in cache"}},
        ],
        "adapt": ["changed command", {"changed deps": {"stages/adapt": "modified"}}],
    }
    assert parse_status(report, {"deleted"}) == {
        "curate": ("params.yaml: seed modified", "data/sources deleted", "data/curated not in cache"),
        "adapt": ("changed command", "stages/adapt modified"),
    }
    with_remote = parse_status(report, {"deleted", "not in cache"})
    assert with_remote["curate"] == ("params.yaml: seed modified", "data/sources deleted")


def test_every_heavy_stage_of_the_real_pipeline_has_a_slot() -> None:
    needs = needs_of((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    assert {name for name, one in needs.items() if one.slot is None} == {"check", "promote"}
    assert {one.slot for one in needs.values()} == {None, "gpu", "cpu-heavy"}
    assert needs["adapt"] == Needs("gpu", "engine.processes", reads_sources=False)
    assert [name for name, one in needs.items() if one.reads_sources] == ["curate"]


def test_what_follows_from_a_stale_stage_may_run() -> None:
    light = Needs(None, None, reads_sources=False)
    stages = [
        Stage("a", (), light, ()),
        Stage("b", ("a",), light, ("b.py modified",)),
        Stage("c", ("b",), light, ()),
        Stage("d", ("a",), light, ()),
    ]
    assert possibly_running(stages, frozenset()) == {"b", "c"}
    assert possibly_running(stages, frozenset({"d"})) == {"b", "c", "d"}


def test_a_workspace_of_what_was_never_built_can_be_checked_out(project: Path) -> None:
    (project / "dvc.lock").unlink(missing_ok=True)
    (project / "data/curated.txt").write_text("left by checking the recipe")
    check_out(project)
    assert not (project / "data/curated.txt").exists()
