"""The report renders with all or few inputs, requests nothing from outside, and draws the figures that it was given."""

import copy
import math
import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest

from stages.evaluation.gates import Figure, Verdict
from stages.recipe.promote import Gate
from stages.reporting import number_format, report_tables, svg
from stages.reporting.figures import over_base_figure, truncation_figure
from stages.reporting.report import render_report
from stages.reporting.training_curves import MAX_POINTS, dev_label, loss_terms, series, thin, training_figure
from stages.reporting.verdicts import IntervalEstimate
from tests.reporting.marked_points import marked_points

MEASURES = {
    "retrieval": "ndcg_at_10",
    "text-matching": "spearman",
    "clustering": "v_measure",
    "classification": "accuracy",
}


ARABIC = {"query": "\u0645\u0627 \u0647\u0630\u0627", "document": "\u0642\u0628\u0639\u0629", "instead": "1 <b>"}
VERDICTS = [
    Verdict("retrieval_retention", Figure(0.87, 0.86, 0.88, 0.01), Gate(min=0.85)),
    Verdict("binary_retention", Figure(0.7996), Gate(min=0.8)),
    Verdict("retrieval_over_champion", Figure(0.012, -0.004, 0.03, 0.2), Gate(low=-0.01)),
    Verdict("clustering_over_champion", Figure(None, note="there is no champion"), Gate(low=-0.02)),
    Verdict("index_compatibility", Figure(0.5, 0.4, 0.6, 0.01), Gate(min=0.95, otherwise="warn")),
    Verdict("validation_failures", Figure(0.0), Gate(max=0)),
    Verdict("formats_left_out", Figure(0.0), Gate(max=0)),
]
GATES_IN_ORDER = [
    ("fail", "Binary retention"),
    ("warning", "Index compatibility"),
    ("pass", "Retrieval retention"),
    ("not applicable", "Clustering over champion"),
]


def _scores(measure: str, value: float) -> dict[str, dict[str, float]]:
    return {
        "wikipedia": {measure: value},
        "docstrings": {measure: value - 0.1},
        "mean": {measure: value - 0.05},
    }


def _metrics() -> dict[str, Any]:
    models = {"teacher": 0.60, "static": 0.40, "base": 0.50, "continued": 0.51}
    metrics: dict[str, Any] = {
        task: {model: _scores(measure, value) for model, value in {**models, task: 0.55}.items()}
        for task, measure in MEASURES.items()
    }
    metrics["retrieval"]["bm25"] = _scores("ndcg_at_10", 0.45)
    metrics["unseen"] = {
        model: {"cwe": {"ndcg_at_10": value}, "mean": {"ndcg_at_10": value}}
        for model, value in {"teacher": 0.8, "retrieval": 0.6}.items()
    }
    metrics["long"] = {"needle": {"after": {"10000": {"512": 0.4, "1024": 0.2}}}}
    for by_source in metrics["retrieval"].values():
        for row in by_source.values():
            row["recall_at_100"] = 0.9
    return metrics | {
        "summary": {"retrieval_retention": 0.87},
        "compression": {
            "float32": {"32": 0.30, "64": 0.40, "128": 0.48, "256": 0.50},
            "int8": {"32": 0.29, "256": 0.495},
            "binary": {"32": 0.10, "256": 0.42},
            "binary_float_queries": {"256": 0.46},
            "binary_rescored": {"256": 0.455},
        },
        "compression_kept": {"binary": {"256": {"figure": 0.84, "low": 0.81, "high": 0.87}}},
        "comparisons": {
            "retrieval": {
                "over": {
                    "base": {"figure": 0.05, "low": 0.03, "high": 0.07, "p": 0.001},
                    "bm25": {"figure": 0.1, "low": -0.01, "high": 0.2, "p": 0.07},
                },
                "of_teacher": {"base": {"figure": 0.8182, "low": 0.79, "high": 0.85}},
            },
            "clustering": {"over": {"base": {"figure": -0.012}}, "of_teacher": {}},
        },
        "mteb": {
            "LocalRetrieval.wikipedia": {"teacher": 0.61, "base": 0.51, "adapters": 0.56},
            "SciFact": {"base": 0.31, "adapters": 0.33},
        },
        "mteb_overlap": {"SciFact": 0.125},
        "weights_int8": {"retrieval": {"cosine_mean": 0.9991, "cosine_min": 0.99, "megabytes": 16.2}},
    }


def _curves() -> dict[str, list[dict[str, Any]]]:
    def rows(*terms: str) -> list[dict[str, Any]]:
        made = [{"step": step, "loss": 9 / step, **dict.fromkeys(terms, 4 / step)} for step in range(10, 200, 10)]
        return [{**row, "dev": 0.3} if row["step"] % 50 == 0 else row for row in made]

    return {"distill": rows("distillation"), "adapt@retrieval": rows("info_nce", "spread_out")}


def _about() -> dict[str, Any]:
    return {
        "name": "pico",
        "created": "2026-03-01T12:34:56+01:00",
        "git_sha": "4f2c91d0ab34e1f7",
        "recipe": {"seed": 7, "adapt": {"retrieval": {"temperature": 0.02, "dims": [32, 64]}}},
        "teacher": {"name": "big-teacher", "dimensions": 384, "parameters": 20_000_000},
        "student": {"parameters": 15_000_000, "dimensions": 256, "layers": 2, "architecture": "EuroBERT"},
        "mode": "enabled",
        "champion": "4",
        "index": "A re-index is due: so it is.",
        "gates": [verdict.as_dict() for verdict in VERDICTS],
        "sources": [{"name": "wikipedia", "kind": "pairs", "language": "en", "license": "CC BY-SA 4.0", "train": 1234}],
        "notes": ["The teacher takes no instructions."],
        "queries": {
            "wikipedia": {
                "queries": 1200,
                "missed": 30,
                "worst": [{"query": "what is it", "document": "a hat", "instead": "a bat", "rank": 41}],
                "base": {"improved": [], "fell": [{**ARABIC, "rank": 2, "before": 1}]},
                "champion": {"improved": [{**ARABIC, "rank": 1, "before": 1204}], "fell": []},
            }
        },
    }


class Page(HTMLParser):
    """What a browser would fetch, and the text a reader sees."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name.rpartition(":")[2] in ("src", "href", "srcset", "action", "data", "poster"):
                self.addresses.append(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def html() -> str:
    return render_report(_metrics(), _curves(), _about())


def test_nothing_is_requested_from_outside(html: str) -> None:
    page = Page(html)
    assert not {"script", "iframe", "img", "object", "embed"} & page.tags
    beside = [address for address in page.addresses if not address.startswith(("#", "data:,"))]
    assert beside == ["../validated/validation.html", "../mined/audit.html"], "where DVC puts them"
    assert "@import" not in html
    assert "url(" not in html


def test_links_within_the_page_lead_somewhere(html: str) -> None:
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)


def test_same_inputs_same_bytes(html: str) -> None:
    assert render_report(_metrics(), _curves(), _about()) == html


def test_failing_gate_is_told_in_text_with_figure_and_limit(html: str) -> None:
    text = Page(html).text
    assert "Refused by 1 of 7 gates. Binary retention is 79.96%, required: at least 80.00%." in text
    assert "Warning: Index compatibility is 50.0% (95% interval 40.0% to 60.0%), required: at least 95.0%." in text
    assert "fail Binary retention 79.96% at least 80.00%" in text
    assert "pass Retrieval retention 87.0% 86.0% to 88.0% at least 85.0%" in text
    over_champion = "pass Retrieval over champion +1.2 points \u22120.4 to +3.0 points"
    assert f"{over_champion} low end at least \u22121.0 points" in text
    assert "not applicable Clustering over champion there is no champion low end at least" in text
    assert "pass Validation failures 0 at most 0" in text
    assert "pass Formats left out 0 at most 0" in text
    assert "All gates 1 fail, 1 warning, 4 pass, 1 not applicable Result" in text
    places = [text.index(f"{word} {label}") for word, label in GATES_IN_ORDER]
    assert places == sorted(places)


def test_gates_are_folded_away_where_all_is_well(html: str) -> None:
    well = _about() | {"gates": [verdict.as_dict() for verdict in VERDICTS[:1]]}
    assert "<details open>\n<summary>All gates" in html
    assert "<details>\n<summary>All gates" in render_report({}, {}, well)


def test_what_changed_since_the_champion(html: str) -> None:
    text = Page(html).text
    assert "The champion is version 4 of the registry." in text
    assert "A re-index is due: so it is." in text
    assert "Retrieval no clear difference +1.2 \u22120.4 to +3.0 0.200" in text


@pytest.mark.parametrize(
    ("mode", "gates", "expected"),
    [
        ("enabled", VERDICTS[:1], "Passed. No gate of the recipe refuses this release (1 pass)."),
        (
            "dry_run",
            VERDICTS[1:2],
            "Would be refused by 1 of 1 gates. Binary retention is 79.96%, required: at least 80.00%. The gates are",
        ),
        ("disabled", [], "No verdict. The recipe sets no gates, or disables them."),
        (None, [], "Not judged yet. The promote stage judges this release and writes data/promoted/report.html."),
    ],
)
def test_the_verdict_follows_the_mode(mode: str | None, gates: list[Verdict], expected: str) -> None:
    about = _about() | {"mode": mode, "gates": [one.as_dict() for one in gates]}
    assert expected in Page(render_report({}, {}, about)).text


def test_headline_results_and_compression(html: str) -> None:
    text = Page(html).text
    assert "Retrieval 87.0% of the teacher's nDCG@10 +5.0 points over the base" in text
    assert "15.0 M parameters, 75.0% of the teacher's" in text
    assert "Retrieval, nDCG@10 better 45.0 50.0 +5.0 +3.0 to +7.0 0.001" in text
    assert "Clustering, V-measure not higher, no interval 45.0 50.0 \u22121.2" in text
    assert "Retrieval \u2013 +10.0 \u22121.0 to +20.0 \u2013 +5.0 +3.0 to +7.0 \u2013" in text
    assert "Base, stage 1 45.0 90.0 81.8% 79.0% to 85.0%" in text
    assert "256 50.0 100.0% · 1,024 B 49.5 99.0% · 256 B 42.0 84.0% · 32 B 81.0% to 87.0% 46.0 92.0% · 32 B" in text
    assert "Dimensions float32 int8 binary binary float queries binary rescored" in text
    assert "64 40.0 80.0% · 256 B \u2013" in text
    assert "Adapter, retrieval 60.0 \u2013 75.0% 60.0" in text  # of sources that nothing was trained on
    assert "Needles, nDCG@1 512 tokens 1,024 tokens After, \u03b8 10,000 40.0 20.0" in text
    assert "Task Teacher Base Adapters Seen in training LocalRetrieval.wikipedia 61.0 51.0 56.0 \u2013 " in text
    assert "SciFact \u2013 31.0 33.0 12.5%" in text
    assert "adapt.retrieval.temperature 0.02" in text
    assert "190 steps; final dev score: 0.300." in text
    assert "Made 2026-03-01 11:34 UTC" in text


def test_queries_to_read_are_shown_whichever_way_their_script_runs(html: str) -> None:
    text = Page(html).text
    assert "wikipedia 30 of 1,200 queries have their document below rank 10" in text
    assert "Answered worst Rank Query Its document Ranked first instead 41 what is it a hat a bat" in text
    assert (
        f"Fell most, compared with the base Rank Query Its document Ranked first now 1 \u2192 2 {ARABIC['query']}"
        in text
    )
    assert "Improved most, compared with champion 4 Rank Query Its document Ranked first before 1,204 \u2192 1" in text
    assert "Improved most, compared with the base" not in text
    assert f'<td dir="auto" data-label="Query">{ARABIC["query"]}</td>' in html
    assert html.count('<td dir="auto"') == 9


def test_without_tasks_of_mteb_nothing_is_said_to_be_seen_in_training() -> None:
    assert "Seen in training" not in render_report(_metrics() | {"mteb_overlap": {}}, _curves(), _about())


def test_sections_come_in_the_agreed_order(html: str) -> None:
    parts = ("training-", "truncation-", "over-base-", "long-")
    ids = [name for name in Page(html).ids if not name.startswith(parts)]
    expected = [
        "held-out",
        "headline",
        "champion",
        "over-base",
        "results",
        "queries",
        "mteb",
        "long",
        "compression",
        "weights",
        "training",
        "data",
        "recipe",
    ]
    assert ids == [*expected, "notes", "glossary"]


def test_best_student_is_marked_and_references_never() -> None:
    table = report_tables.results(_metrics())[0]
    marks = {row.label: [cell.is_best for cell in row.cells] for _, rows in table.groups for row in rows}
    assert table.columns == ["mean", "wikipedia", "docstrings"]
    assert marks.pop("Adapter, retrieval") == [True, True, True]
    assert not any(any(cells) for cells in marks.values())


@pytest.mark.parametrize(
    ("metrics", "curves", "about"),
    [
        ({}, {}, {}),
        (
            {"retrieval": {"base": {"mean": {}}}, "summary": None, "comparisons": {"retrieval": {"over": None}}},
            {"distill": []},
            {},
        ),
        (
            {"compression": {"float32": {"32": 0.1}}},
            {"distill": [{"step": 1}]},
            {"student": None, "gates": []},
        ),
        (
            {"weights_int8": {"retrieval": {}}},
            {"distill": [{"step": 1, "loss": math.nan, "dev": None}]},
            {
                "mode": "enabled",
                "gates": [Verdict("x", Figure(math.nan), Gate(min=1, max=2)).as_dict()],
                "sources": [{"name": "s"}],
            },
        ),
    ],
)
def test_missing_optional_values_do_not_crash(
    metrics: dict[str, Any], curves: dict[str, Any], about: dict[str, Any]
) -> None:
    html = render_report(metrics, curves, about)
    assert html.rstrip().endswith("</html>")
    assert ">None<" not in html
    assert "nan" not in Page(html).text


def test_every_text_is_escaped() -> None:
    evil = "<script>alert(1)</script>"
    metrics, about = _metrics(), copy.deepcopy(_about())
    metrics["retrieval"][evil] = metrics["retrieval"]["base"]
    metrics["clustering"]["base"][evil] = {"v_measure": 0.1}
    about |= {
        "name": evil,
        "git_sha": evil,
        "notes": [evil],
        "recipe": {evil: {evil: evil}},
        "teacher": {"name": evil},
    }
    about["sources"] = [dict.fromkeys(("name", "kind", "language", "license"), evil)]
    about["gates"][1] |= {"metric": evil, "note": evil}
    about["index"] = about["champion"] = evil
    row = dict.fromkeys(("query", "document", "instead"), evil) | {"rank": 3, "before": 1}
    about["queries"][evil] = {"queries": 1, "missed": 0, "worst": [row], "base": {"fell": [row]}}
    html = render_report(metrics, {evil: [{"step": 1, evil: 2.0}]}, about)
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)" in html


def test_truncation_figure_draws_each_measurement_at_its_place() -> None:
    figure = truncation_figure(_metrics()["compression"], 0.6)
    marks = marked_points(figure)
    assert len(marks) == 10
    assert "binary float queries, 256 dimensions: 46.0" in marks
    x32, y32 = marks["float32, 32 dimensions: 30.0"]
    x64, y64 = marks["float32, 64 dimensions: 40.0"]
    x128, _ = marks["float32, 128 dimensions: 48.0"]
    _, binary = marks["binary, 32 dimensions: 10.0"]
    assert x64 - x32 == pytest.approx(x128 - x64, abs=0.3)  # halving is one step wherever it is
    assert (binary - y32) == pytest.approx(2 * (y32 - y64), abs=0.5)  # 20 points down, 10 points up
    assert "teacher, full dimension: 60.0" in figure
    assert ">dimensions kept (log scale)</text>" in figure
    assert ">nDCG@10 (\u00d7100)</text>" in figure


def _over_base() -> dict[str, IntervalEstimate]:
    return {task: IntervalEstimate.of(by_kind["over"]["base"]) for task, by_kind in _metrics()["comparisons"].items()}


def test_over_base_figure_draws_differences_and_intervals() -> None:
    figure = over_base_figure(_over_base())
    marks = marked_points(figure)
    better = marks["Retrieval: +5.0 points (+3.0 to +7.0)"]
    worse = marks["Clustering: \u22121.2 points (no interval)"]
    assert worse[0] < better[0]
    assert better[1] < worse[1]


def test_training_figure_names_the_terms_and_averages_many_points() -> None:
    rows = [{"step": step, "loss": 2.0 / step, "info_nce": 1.0, "learning_rate": 1e-4} for step in range(1, 1001)]
    rows[-1]["dev"] = 0.5
    figure = training_figure("adapt@retrieval", rows)
    for text in ("Adapter: retrieval", "Total", "InfoNCE", "loss (log scale)", "dev score", "step"):
        assert f">{text}</text>" in figure
    assert "Learning rate" not in figure
    assert "Last values: Loss 0.002" in figure
    thinned = thin(series(rows, "loss"))
    assert len(thinned) <= MAX_POINTS
    assert thinned[0][0] == 4  # the mean of steps 1 to 7


def test_a_loss_term_keeps_its_colour_in_every_phase() -> None:
    terms = loss_terms(_curves().values())
    assert terms == ["distillation", "info_nce", "spread_out"]
    figure = training_figure("adapt@retrieval", _curves()["adapt@retrieval"], terms)
    assert "--series-2" in figure
    assert "--series-3" in figure


def test_a_single_term_is_not_drawn_again_as_the_total() -> None:
    same = [{"step": step, "loss": 1.0 / step, "distillation": 1.0 / step} for step in range(1, 9)]
    assert ">Total</text>" not in training_figure("distill", same)
    weighted = [{**row, "loss": 2.0} for row in same]
    assert ">Total</text>" in training_figure("distill", weighted)


def test_figures_are_small_named_and_follow_the_colours_of_the_page() -> None:
    metrics = _metrics()
    drawn = [
        truncation_figure(metrics["compression"], 0.6),
        over_base_figure(_over_base()),
        *(training_figure(phase, rows) for phase, rows in _curves().items()),
    ]
    for figure in drawn:
        root = ElementTree.fromstring(figure)
        assert root.attrib["role"] == "img"
        assert root.attrib["aria-label"]
        assert root[0].tag.endswith("}title")
        assert len(figure) < 20_000
        assert "<style" not in figure
        bare = re.sub(r"var\(--[a-z0-9-]+, #[0-9a-f]{6}\)", "", figure)
        assert re.findall(r"(?:fill|stroke): (?!none)[^;\"]+", bare) == []
        assert not any(colour in bare for colour in svg.VARIABLES)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (number_format.percent(0.8712), "87.1%"),
        (number_format.points(0.012), "+1.2"),
        (number_format.points(-0.012), "\u22121.2"),
        (number_format.points(-0.00001), "0.0"),
        (number_format.score(None), "\u2013"),
        (number_format.score(math.nan), "\u2013"),
        (number_format.count(12345), "12,345"),
        (number_format.compact(22_713_216), "22.7 M"),
        (number_format.figure("release_megabytes", 62.04), "62.0 MB"),
        (number_format.figure("retrieval_over_bm25", 0.021), "+2.1 points"),
        (number_format.figure("int8_weights_cosine_min", 0.99624), "0.9962"),
        (number_format.figure("num_rows", 1234), "1,234.0"),
        (number_format.figure("validation_failures", 1.0), "1"),
        (number_format.words("ndcg_at_10"), "nDCG@10"),
        (number_format.words("text-matching"), "Text matching"),
        (number_format.words("info_nce"), "InfoNCE"),
        (number_format.words("difference"), "Difference"),
        (number_format.moment("soon"), "soon"),
        (dev_label("dev_ndcg_at_10"), "dev nDCG@10"),
        (dev_label("dev"), "dev score"),
    ],
)
def test_numbers_and_names(written: str, expected: str) -> None:
    assert written == expected


def test_a_report_of_one_task_has_no_row_of_another() -> None:
    known, about = _metrics(), _about()
    metrics = {"classification": known["classification"], "summary": {"classification_retention": 0.9}}
    metrics["weights_int8"] = {"classification": {"float_megabytes": 51.0}}
    metrics["mteb"] = {"LocalSTS.a": {"base": 0.5}, "LocalClassification.b": {"base": 0.5, "adapters": 0.6}}
    student = about["student"] | {"tasks": ["classification"]}
    page = render_report(metrics, {}, about | {"student": student, "gates": [], "queries": {}})
    assert "with an adapter for classification." in page
    for section in ("compression", "weights", "queries", "training"):
        assert f'id="{section}"' not in page
    assert "<h3>Classification</h3>" in page and "<h3>Clustering</h3>" not in page
    assert '<th scope="col">Adapters</th>' in page
