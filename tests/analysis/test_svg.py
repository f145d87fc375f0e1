"""Scales, words and places of drawings, by hand."""

import math
from xml.etree import ElementTree

import pytest

from hpcgeo_analysis.svg import Canvas, Ground, Scale, apart, box, element, nearest, path, width


def test_a_scale_by_hand():
    linear = Scale(0, 200, 10, 110)
    assert [linear(value) for value in (0, 50, 200)] == [10, 35, 110]
    log = Scale(8, 1024, 0, 70, 2)
    assert [round(log(value), 9) for value in (8, 16, 1024)] == [0, 10, 70]
    assert Scale(4, 4, 0, 10, 2)(4) == 5


@pytest.mark.parametrize(
    ("scale", "ticks"),
    [
        (Scale(0, 104, 0, 1), [0, 25, 50, 75, 100]),
        (Scale(0, 0.0047, 0, 1), [0, 0.001, 0.002, 0.003, 0.004]),
        (Scale(3, 47, 0, 1), [10, 20, 30, 40]),
        (Scale(70, 130_000, 0, 1, 10), [100, 1_000, 10_000, 100_000]),
        (Scale(0.9, 12, 0, 1, 10), [1, 2, 5, 10]),
        (Scale(1e-3, 1e9, 0, 1, 10), [1e-3, 1, 1e3, 1e6, 1e9]),
    ],
)
def test_ticks_are_round(scale, ticks):
    assert scale.ticks() == pytest.approx(ticks)


def test_text_is_escaped_and_keeps_its_ground():
    canvas = Canvas(100, 40)
    ground = canvas.text(50, 20, "</text><b>", anchor="middle", css='"')
    assert ground.left + ground.right == pytest.approx(100)
    assert not canvas.free(Ground(49, 15, 51, 19)) and canvas.free(Ground(0, 30, 10, 40))
    assert not canvas.free(Ground(95, 30, 101, 40)), "outside"
    (text,) = ElementTree.fromstring(canvas.svg("what it shows"))
    assert text.text == "</text><b>"


def test_words_of_another_view_do_not_stand_in_the_way():
    canvas = Canvas(100, 40)
    with canvas.group(alone=True, data_view="first"):
        canvas.text(0, 20, "first")
        assert not canvas.free(Ground(0, 15, 10, 20))
    assert canvas.free(Ground(0, 15, 10, 20))


def test_coordinates_are_short():
    assert path([(0.04, 1.25), (100.0, 2.0)]) == '<path d="M0 1.2L100 2"/>'
    assert element("g", x=1.0, data_line="", class_=None, text_anchor="end") == (
        '<g x="1" text-anchor="end"/>'
    )


def test_widths_are_those_of_the_widest_usual_font():
    """DejaVu Sans of 10 pixels, by its own metrics."""
    assert 78.4 < width("HYBRID_SHARD", 10) < 86
    assert width("iiii", 10) == pytest.approx(12) and width("\N{SNOWMAN}", 10) == 6.5
    assert box(0, 0, "%", "end", 10) == Ground(-10, -8, 0, 2.5)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ([10, 50], [10, 50]),
        ([50, 50, 50], [40, 50, 60]),
        ([52, 50], [56, 46]),
        ([0, 1, 2], [0, 10, 20]),  # not above the top
        ([100, 99], [100, 90]),  # not below the foot
    ],
)
def test_labels_move_apart_as_little_as_they_can(wanted, found):
    assert apart(wanted, 10, 0, 100) == pytest.approx(found)


def test_words_go_where_there_is_room():
    canvas = Canvas(200, 100)
    place = nearest(canvas, "-53 %", (100, 50))
    assert place is not None and math.dist(place, (100, 53.3)) < 1
    canvas.text(*place, "-53 %", anchor="middle")
    second = nearest(canvas, "-51 %", (100, 50))
    assert second is not None and canvas.free(box(*second, "-51 %", "middle"))
    crossing = [[(0, 50), (200, 50)]]
    beside = nearest(Canvas(200, 100), "-53 %", (100, 50), crossing)
    assert beside is not None and abs(beside[1] - 53.3) > 6
    assert nearest(Canvas(20, 10), "too long for it", (10, 5)) is None
