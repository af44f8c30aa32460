"""From a matplotlib figure to a small inline SVG that follows the page's light and dark colours.

Matplotlib knows no CSS variables, so figures are drawn in the light colours below and each is then replaced
by its variable of `page.css`, with the light colour as the fallback outside the page.
"""

import re
from io import StringIO
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

INK, MUTED, RULE = "#23262b", "#5f666f", "#dedad1"
# Okabe and Ito (2008): told apart under every common colour blindness.
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
    """Open a figure of the given size in CSS pixels; call it inside `matplotlib.rc_context(STYLE)`."""
    figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
    figure.patch.set_visible(False)
    return figure


def to_svg(figure: Figure, key: str, title: str, description: str, tips: dict[str, str]) -> str:
    """Write a figure as one `<svg>` element.

    Args:
        figure: The drawn figure.
        key: Unique on the page; prefixes the ids that remain.
        title: The accessible name, short.
        description: What a reader who cannot see the figure should hear.
        tips: Artist gid to text; becomes the `<title>`, shown on hovering, of that artist.
    """
    buffer = StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    root = ElementTree.fromstring(buffer.getvalue())
    _flatten(root)
    _rename(root, key, tips)
    _unwrap(root)
    for element in root.iter():
        _tidy(element)
    _label(root, title, description)
    return ElementTree.tostring(root, encoding="unicode")


def _flatten(root: ElementTree.Element) -> None:
    """Drop namespaces, line breaks, clipping, and the style sheet, which would reach all of a page."""
    for parent in list(root.iter()):
        parent.tag = parent.tag.rpartition("}")[2]
        parent.attrib = {name.rpartition("}")[2]: value for name, value in parent.attrib.items()}
        parent.attrib.pop("clip-path", None)
        for child in list(parent):
            if child.find("{*}style") is not None or child.find("{*}clipPath") is not None:
                parent.remove(child)
        parent.text = parent.text if parent.text and parent.text.strip() else None
        parent.tail = None


def _rename(root: ElementTree.Element, key: str, tips: dict[str, str]) -> None:
    """Keep only the ids that something refers to, prefixed, and turn gids with a tip into titles."""
    used = {element.attrib["href"][1:] for element in root.iter() if "href" in element.attrib}
    for element in list(root.iter()):
        name = element.attrib.pop("id", None)
        if name in used:
            element.set("id", f"{key}-{name}")
        if name in tips:
            tip = ElementTree.Element("title")
            tip.text = tips[name]
            element.insert(0, tip)
        if "href" in element.attrib:
            element.set("href", f"#{key}-{element.attrib['href'][1:]}")


def _unwrap(parent: ElementTree.Element) -> None:
    """Replace groups that carry nothing, neither an attribute nor a title, by what they hold."""
    children: list[ElementTree.Element] = []
    for child in parent:
        _unwrap(child)
        is_bare = child.tag in ("g", "defs") and not child.attrib and child.find("title") is None
        children.extend(child if is_bare and (child.tag == "g" or len(child) == 0) else [child])
    parent[:] = children


def _tidy(element: ElementTree.Element) -> None:
    """Shorten numbers, and put the page's colours and font in place of matplotlib's."""
    for name in NUMERIC:
        if name in element.attrib:
            element.set(name, " ".join(DECIMAL.sub(_tenth, element.attrib[name]).split()))
    if element.attrib.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]
    if "style" in element.attrib:
        element.set("style", HEX.sub(_variable, FONT.sub("", element.attrib["style"])))


def _tenth(match: re.Match[str]) -> str:
    """A number to a tenth of a pixel."""
    return f"{float(match[0]):.1f}".removesuffix(".0")


def _variable(match: re.Match[str]) -> str:
    """The CSS variable of a light colour."""
    name = VARIABLES.get(match[0])
    return f"var({name}, {match[0]})" if name else match[0]


def _label(root: ElementTree.Element, title: str, description: str) -> None:
    """Name the image for assistive tools and give it its size in pixels."""
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
    heading = ElementTree.Element("title")
    heading.text = title
    root.insert(0, heading)
