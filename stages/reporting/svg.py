"""Conversion of matplotlib figures to small inline SVGs that follow the page's light and dark colours.

Matplotlib knows no CSS variables, so figures are drawn in the light colours below; each colour is then replaced by its
variable of `page.css`, with the light colour as the fallback outside the page.
"""

import re
from io import StringIO
from typing import Any
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

INK, MUTED, RULE = "#23262b", "#5f666f", "#dedad1"
# Okabe and Ito (2008): distinguishable under every common colour blindness.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#aa4f8a", "#8a6d00")
VARIABLES = {INK: "--ink", MUTED: "--muted", RULE: "--rule"} | {
    colour: f"--series-{number}" for number, colour in enumerate(SERIES, start=1)
}
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "stillhouse",  # matplotlib's ids are random without one
    "font.family": "DejaVu Sans",
    "font.size": 11.0,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 11.0,
    "axes.edgecolor": RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "xtick.major.size": 0,
    "xtick.labelcolor": MUTED,
    "ytick.major.size": 0,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "legend.handlelength": 2.2,
    "lines.linewidth": 1.8,
    "path.simplify_threshold": 0.3,
}
FONT = re.compile(r"font-family: [^;]*;? ?")
HEX = re.compile(r"#[0-9a-f]{6}\b")
DECIMAL = re.compile(r"-?\d+\.\d+")
NUMERIC = ("d", "x", "y", "width", "height", "transform", "points")


def canvas(width: int, height: int) -> Figure:
    """Open a figure of a size in CSS pixels; call it inside `matplotlib.rc_context(STYLE)`."""
    figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
    figure.patch.set_visible(False)
    return figure


def to_svg(figure: Figure, key: str, title: str, description: str, tips: dict[str, str]) -> Markup:
    """Write a figure as one `<svg>` element.

    Args:
        key: unique on the page; prefix of the ids that remain.
        title: short accessible name.
        description: text for a reader who cannot see the figure.
        tips: artist gid to text, which becomes the artist's `<title>` and is shown on hovering.
    """
    buffer = StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    root = ElementTree.fromstring(buffer.getvalue())
    _remove_namespaces_and_clipping(root)
    _replace_ids(root, key, tips)
    for element in root.iter():
        _shorten(element)
    width, height = root.attrib["viewBox"].split()[2:]
    root.attrib = {
        "xmlns": "http://www.w3.org/2000/svg",
        "viewBox": root.attrib["viewBox"],
        "width": f"{float(width):.0f}",
        "height": f"{float(height):.0f}",
        "role": "img",
        "style": "font-family: system-ui, sans-serif",
        "aria-label": f"{title}. {description}",
    }
    _insert_title(root, title)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _remove_namespaces_and_clipping(root: ElementTree.Element) -> None:
    """Remove namespaces, line breaks, clipping, and the style sheet, which would apply to the whole page."""
    for parent in list(root.iter()):
        parent.tag = parent.tag.rpartition("}")[2]
        parent.attrib = {name.rpartition("}")[2]: value for name, value in parent.attrib.items()}
        parent.attrib.pop("clip-path", None)
        for child in list(parent):
            if child.find("{*}style") is not None or child.find("{*}clipPath") is not None:
                parent.remove(child)
        parent.text = parent.text if parent.text and parent.text.strip() else None
        parent.tail = None


def _replace_ids(root: ElementTree.Element, key: str, tips: dict[str, str]) -> None:
    """Prefix the ids that something refers to, remove the others, and give artists with a tip their title."""
    used = {element.attrib["href"][1:] for element in root.iter() if "href" in element.attrib}
    for element in list(root.iter()):
        name = element.attrib.pop("id", None)
        if name in used:
            element.set("id", f"{key}-{name}")
        if name in tips:
            _insert_title(element, tips[name])
        if "href" in element.attrib:
            element.set("href", f"#{key}-{element.attrib['href'][1:]}")


def _insert_title(element: ElementTree.Element, text: str) -> None:
    title = ElementTree.Element("title")
    title.text = text
    element.insert(0, title)


def _shorten(element: ElementTree.Element) -> None:
    """Round numbers to a tenth of a pixel, and replace matplotlib's colours and font by the page's."""
    for name in NUMERIC:
        if name in element.attrib:
            text = DECIMAL.sub(lambda match: f"{float(match[0]):.1f}".removesuffix(".0"), element.attrib[name])
            element.set(name, " ".join(text.split()))
    if element.attrib.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]
    if "style" in element.attrib:
        element.set("style", HEX.sub(_css_variable, FONT.sub("", element.attrib["style"])))


def _css_variable(match: re.Match[str]) -> str:
    name = VARIABLES.get(match[0])
    return f"var({name}, {match[0]})" if name else match[0]
