"""Studies from records made in code."""

from collections.abc import Callable, Sequence

import pytest

from hpcgeo.records import LinksRecord, Record
from hpcgeo_analysis.blocks import Study
from hpcgeo_analysis.comparisons import compare
from hpcgeo_analysis.points import points


@pytest.fixture
def study() -> Callable[..., Study]:
    """Return a function that makes a study of records."""

    def made(
        records: Sequence[Record],
        links: Sequence[LinksRecord] = (),
        together: Sequence[str] = (),
    ) -> Study:
        found = points(records)
        return Study(records, links, found, compare(found, together))

    return made
