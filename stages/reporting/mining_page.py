"""The audit page of mining: what the margins removed, which queries have too few negatives, and texts to read.

Texts on this page come from users' sources: the template escapes everything, and long texts are cut.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from markupsafe import Markup

from stages.recipe.mine import Mine
from stages.reporting import number_format as formats
from stages.reporting.figures import DASHES, coordinates, finish, legend
from stages.reporting.page import render
from stages.reporting.svg import MUTED, SERIES, STYLE, canvas, to_svg
from stages.reporting.validation import as_text

WIDTH, HEIGHT = 440, 270  # CSS pixels
LINES = {"removed": "candidates removed", "too_few": "queries with too few negatives"}


def render_mining(section: Mine, audit: Mapping[str, Mapping[str, Any]]) -> str:
    """Render the audit of a build's hard negatives; the same audit gives the same bytes.

    Args:
        audit: results by source, as the stage writes it to audit.json.

    Returns:
        An HTML document that requests nothing from the network.
    """
    sources = [
        {
            **figures,
            "source": source,
            "curve": Markup(margin_figure(source, figures["margin_curve"], section.relative_margin)),
            "suspects": [_with_cut_texts(suspect) for suspect in figures["suspects"]],
            "examples": [_with_cut_texts(example) for example in figures["examples"]],
            "left_out": [_with_cut_texts(one) for one in figures["left_out"]],
            "kept": [_with_cut_texts(one) for one in figures["kept"]],
            "contradictions": [_with_cut_texts(one) for one in figures["contradictions"]],
        }
        for source, figures in audit.items()
    ]
    return render("mining.html.j2", name="Hard negatives", settings=section.model_dump(mode="json"), sources=sources)


def margin_figure(source: str, curve: Sequence[Mapping[str, float]], chosen: float) -> str:
    """Draw the shares that each relative margin would remove and leave with too few negatives, as SVG.

    Args:
        chosen: the recipe's relative margin, which is marked.
    """
    tips = {"chosen": f"the recipe's margin: {formats.percent(chosen)}"}
    with matplotlib.rc_context(STYLE):
        figure = canvas(WIDTH, HEIGHT)
        axes = figure.subplots()
        for number, (name, label) in enumerate(LINES.items()):
            points = [(point["margin"] * 100, point[name] * 100) for point in curve]
            axes.plot(*coordinates(points), color=SERIES[number], linestyle=DASHES[number], label=label, gid=name)
            tips[name] = "; ".join(f"margin {formats.fixed(x, 0)}%: {formats.fixed(y)}% of {label}" for x, y in points)
        axes.axvline(chosen * 100, color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2, gid="chosen")
        axes.set(xlabel="relative margin, %", ylabel="share, %", ylim=(0, None))
        legend(axes, columns=1)
        finish(figure, "What a margin costs")
    return to_svg(figure, f"margin-{source}", f"Margins of {source}", "; ".join(tips.values()), tips)


def _with_cut_texts(example: Mapping[str, Any]) -> dict[str, Any]:
    """Cut the long texts of an example or suspect."""
    cut: dict[str, Any] = {name: as_text(value) if isinstance(value, str) else value for name, value in example.items()}
    if "negatives" in cut:
        cut["negatives"] = [as_text(text) for text in cut["negatives"]]
    return cut
