"""Positions of the marked points of a figure."""

from xml.etree import ElementTree


def marked_points(figure: str) -> dict[str, tuple[float, float]]:
    """Pixel position of every marked point, by its tip."""
    found = {}
    for group in (element for element in ElementTree.fromstring(figure).iter() if element.tag.endswith("}g")):
        tip, mark = group.find("{*}title"), group.find(".//{*}use")
        if tip is not None and tip.text and mark is not None:
            found[tip.text] = (float(mark.attrib["x"]), float(mark.attrib["y"]))
    return found
