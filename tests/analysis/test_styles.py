"""One look of a strategy everywhere, apart from the others, on both pages."""

import colorsys
import re

import pytest

from hpcgeo.strategies import strategies
from hpcgeo_analysis import styles
from hpcgeo_analysis.styles import style


def colours() -> list[dict[str, str]]:
    """Return the variables of the light and of the dark page."""
    light, dark = re.findall(r":root\{(.*?)\}", styles.css())
    return [dict(re.findall(r"--([\w-]+):(#\w+)", rules)) for rules in (light, dark)]


def luminance(colour: str) -> float:
    """Of sRGB (WCAG 2.2)."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, two: str) -> float:
    high, low = sorted((luminance(one), luminance(two)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_every_strategy_has_a_look_of_its_own():
    names = [name for name in strategies() if name != "HYBRID_SHARD"]
    looks = [style(name) for name in names] + [style(f"HYBRID_SHARD({k})") for k in (2, 4, 8, 16)]
    assert len({(look.colour, look.mark) for look in looks}) == len(looks)
    assert "other-line" not in {look.colour for look in looks}
    assert len({look.letter for look in looks}) == len(looks)
    assert style("HYBRID_SHARD(8)").letter == "H8" and style("FULL_SHARD").letter == "F"


def test_a_line_looks_as_its_layout_whatever_follows_it():
    plain, again = style("HYBRID_SHARD(4)"), style("HYBRID_SHARD(4) bins, 4 per node", 1)
    assert (plain.colour, plain.mark) == (again.colour, again.mark)
    assert plain.dash == "" != again.dash
    assert style("<b>").colour == style("mine").colour == "other-line"


@pytest.mark.parametrize("page", [0, 1], ids=["light", "dark"])
def test_lines_are_seen_on_both_pages(page):
    known = colours()[page]
    lines = {style(name).colour for name in strategies()} | {f"hybrid-{n}" for n in range(1, 5)}
    for name in lines | {"loss", "muted", "ink", "warn"}:
        least = 4.5 if name in ("loss", "muted", "ink", "warn") else 2.4
        assert contrast(known[name], known["paper"]) >= least, name


def test_a_family_has_one_hue():
    def hue(name: str) -> float:
        parts = [int(light[name][at : at + 2], 16) / 255 for at in (1, 3, 5)]
        return 360 * colorsys.rgb_to_hls(*parts)[0]

    light, _ = colours()
    for family in (("ddp", "no-shard"), ("shard-grad-op", "full-shard"), ("zero1", "zero3")):
        first, second = map(hue, family)
        assert abs(first - second) < 25, family
    ramp = [hue(f"hybrid-{n}") for n in range(5)]
    assert max(ramp) - min(ramp) < 25
    light_to_dark = [luminance(light[f"hybrid-{n}"]) for n in range(5)]
    assert light_to_dark == sorted(light_to_dark, reverse=True)


def test_both_pages_have_the_same_colours():
    light, dark = colours()
    assert light.keys() == dark.keys()
