"""Figures read back: where their words stand, what they say of a line, what no figure may do."""

import re
from collections.abc import Iterator
from itertools import combinations
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from hpcgeo_analysis.figures.figure import Figure
from hpcgeo_analysis.styles import css
from hpcgeo_analysis.svg import FONT, Ground, box

SVG = "{http://www.w3.org/2000/svg}"
WORDS = 18
#: What a report never says.
UNSAID = ("told apart", "no claim", "nothing else", "not measured")


def read(panel: str) -> Element:
    """Return a panel as XML."""
    return ElementTree.fromstring(panel)


def texts(found: Element) -> list[str]:
    """Return the words of a panel in their order."""
    return ["".join(text.itertext()) for text in found.iter(f"{SVG}text")]


def view(found: Element, name: str) -> Element:
    """Return one view of a panel."""
    (group,) = [group for group in found.iter(f"{SVG}g") if group.get("data-view") == name]
    return group


def of_line(found: Element, line: str) -> list[Element]:
    """Return what belongs to a line."""
    return [part for part in found.iter() if part.get("data-line") == line]


def tips(found: Element) -> list[str]:
    """Return what is shown where a pointer rests."""
    return [title.text or "" for title in found.iter(f"{SVG}title")]


def widths(found: Element) -> list[float]:
    """Return the widths of the bars' parts in pixels."""
    parts = (part for part in found.iter(f"{SVG}rect") if part.find(f"{SVG}title") is not None)
    return [float(part.get("width", "nan")) for part in parts]


def ground(text: Element) -> Ground:
    """Return the ground of words."""
    font = float(re.findall(r"font-size:([\d.]+)px", text.get("style", f"font-size:{FONT}px"))[0])
    bold = bool({"bold", "loss"} & set(text.get("class", "").split()))
    place = (float(text.get("x", "nan")), float(text.get("y", "nan")))
    words = "".join(text.itertext())
    return box(*place, words, text.get("text-anchor", "start"), font, bold)


def screens(found: Element) -> Iterator[list[Element]]:
    """Yield the words that are seen together: those of every view, with what is in none."""
    views = [group for group in found.iter(f"{SVG}g") if group.get("data-view")]
    inside = {id(text) for group in views for text in group.iter(f"{SVG}text")}
    always = [text for text in found.iter(f"{SVG}text") if id(text) not in inside]
    yield from ([*always, *group.iter(f"{SVG}text")] for group in views)
    if not views:
        yield always


def check(figure: Figure) -> None:
    """Assert what holds for every figure."""
    for words in (figure.title, *figure.sentences, figure.missing):
        assert len(words.split()) <= WORDS, words
    said = [
        figure.title,
        figure.caption,
        *figure.sentences,
        *(text for _, text in figure.footnotes),
    ]
    assert not [words for words in said for never in UNSAID if never in words]
    assert figure.panels or figure.sentences or figure.missing
    known = set(re.findall(r"--([\w-]+):", css()))
    for panel in figure.panels:
        assert set(re.findall(r"var\(--([\w-]+)\)", panel)) <= known
        assert not re.search(r"#[0-9a-fA-F]{3,6}\b", panel), "a colour that no dark page can change"
        found = read(panel)
        assert found.get("role") == "img" and len(found.get("aria-label", "")) > 40
        _, _, right, bottom = map(float, found.get("viewBox", "").split())
        for shown in screens(found):
            boxes = [ground(text) for text in shown]
            for text, own in zip(shown, boxes, strict=True):
                inside = own.left > -0.5 and own.top > -0.5
                assert inside and own.right < right + 0.5 and own.bottom < bottom + 0.5, text.text
            for (one, own), (two, other) in combinations(zip(shown, boxes, strict=True), 2):
                near = Ground(own.left + 0.5, own.top + 0.5, own.right - 0.5, own.bottom - 0.5)
                assert not near.meets(other), f"{one.text} over {two.text}"
        for part in found.iter(f"{SVG}rect"):
            assert -0.1 <= float(part.get("x", 0)) <= right + 0.1
            assert float(part.get("x", 0)) + float(part.get("width", 0)) <= right + 0.1
        for part in found.iter(f"{SVG}path"):
            places = re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", part.get("d", ""))
            if part.get("transform"):
                places = re.findall(
                    r"translate\((-?[\d.]+) (-?[\d.]+)\)", part.get("transform", "")
                )
            for x, y in places:
                assert -0.5 <= float(x) <= right + 0.5 and -0.5 <= float(y) <= bottom + 0.5
