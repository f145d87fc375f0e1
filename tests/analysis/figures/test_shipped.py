"""Every figure of the records that are shipped, and that no model or line is lost on the way."""

from pathlib import Path

import pytest

from hpcgeo_analysis.reading import load
from hpcgeo_analysis.report import FIGURES
from tests.analysis.figures.drawn import SVG, check, read

RECORDS = Path(__file__).parents[3] / "profiles" / "records"


@pytest.fixture(scope="module")
def loaded():
    return {name: load([RECORDS / name]) for name in ("frontier", "local")}


@pytest.mark.parametrize("name", ["frontier", "local"])
def test_shipped_records_are_drawn(loaded, study, name):
    found = study(loaded[name].records, loaded[name].links)
    figures = [figure for make in FIGURES if (figure := make(found))]
    for figure in figures:
        check(figure)
    scaling = next(figure for figure in figures if figure.anchor == "scaling")
    lines = {
        part.get("data-line")
        for panel in scaling.panels
        for part in read(panel).iter(f"{SVG}g")
        if part.get("data-line")
    }
    grown = {
        line
        for comparison in found.comparisons
        for line, members in comparison.lines.items()
        if len({s.point.devices for s in members}) > 1
    }
    assert grown <= lines
