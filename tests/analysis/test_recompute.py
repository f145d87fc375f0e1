"""The sentences of both reports state nothing that the raw records do not."""

import re
from pathlib import Path

import pytest

from hpcgeo_analysis.reading import load
from hpcgeo_analysis.report import render
from tests.analysis.recompute import Fact, facts, read, unexplained

RECORDS = Path(__file__).parents[2] / "profiles" / "records"

#: A number with its unit.
STATED = re.compile(r"(\d[\d,]*\.?\d*) (?=%|x (?!\d)|images/s|samples/s|GiB|ms|KB|TFLOP/s|GFLOP/s)")


@pytest.fixture(scope="module", params=["frontier", "local"])
def stated(request: pytest.FixtureRequest) -> tuple[str, list[Fact]]:
    """A report, and what its records say without it."""
    folder = RECORDS / request.param
    found = load([folder])
    text = render(found.records, links=found.links)["report.md"].decode()
    return text, facts(*read([folder]))


def test_every_number_is_recomputed(stated: tuple[str, list[Fact]]) -> None:
    assert list(unexplained(*stated)) == []


def test_a_wrong_number_is_seen(stated: tuple[str, list[Fact]]) -> None:
    """The first number of each sentence is made 7 % larger: most are explained no more."""
    text, known = stated
    heading, seen = "", list[bool]()
    for line in text.splitlines():
        heading = line if line.startswith("#") else heading
        match = STATED.search(line)
        if line.startswith("-") and match and "less than 5.0 %" not in line:
            digits = match[1].replace(",", "")
            places = len(digits.partition(".")[2])
            wrong = float(digits) + max(0.07 * float(digits), 2 * 10.0**-places)
            changed = f"{line[: match.start(1)]}{wrong:,.{places}f}{line[match.end(1) :]}"
            seen.append(bool(list(unexplained(f"{heading}\n{changed}", known))))
    assert len(seen) > 8
    assert sum(seen) >= 0.8 * len(seen)
