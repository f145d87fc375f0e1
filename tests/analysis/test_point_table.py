"""The table of all points, and the records inside of the page."""

import json

from hpcgeo_analysis.blocks import Study
from hpcgeo_analysis.comparisons import compare
from hpcgeo_analysis.embedded import embedded
from hpcgeo_analysis.page import points_html, points_markdown
from hpcgeo_analysis.point_table import point_table
from hpcgeo_analysis.points import points
from hpcgeo_analysis.winners import fields


def table(records):
    found = points(records)
    study = Study(records, [], found, compare(found))
    return point_table(study, fields(study.comparisons))


def whole_again(value, shared):
    """Return a part of the page's records with shared parts in their place."""
    if isinstance(value, dict):
        if "$" in value:
            return whole_again(shared[value["$"]], shared)
        return {key: whole_again(part, shared) for key, part in value.items()}
    return [whole_again(part, shared) for part in value] if isinstance(value, list) else value


def test_no_column_without_a_value_and_none_that_says_one_thing(make):
    found = table([make("DDP", 1), make("DDP", 2), make("ZERO3", 2, 0.2)])
    titles = [title for title, _ in found.columns]
    assert titles == [
        *("devices", "images/s", "per device", "of the best", "weak efficiency"),
        *("step", "p10", "p90", "node-h / M images"),
    ]
    assert found.common == (
        "In every row: model vit_tiny, nodes 1, micro-batch 8, accumulation 1, runs 1."
    )
    assert all(any(row.cells[place] for row in found.rows) for place in range(len(titles)))


def test_rows_say_how_they_stand(make):
    found = table([make("DDP", 2, 0.1), make("NO_SHARD", 2, 0.1), make("ZERO3", 2, 0.2)])
    assert [(row.line, row.standing) for row in found.rows] == [
        ("DDP", "best"),
        ("NO_SHARD", "tie"),
        ("ZERO3", ""),
    ]
    shares = [row.cells[[t for t, _ in found.columns].index("of the best")] for row in found.rows]
    assert shares == [("100 %", 1.0), ("100 %", 1.0), ("50 %", 0.5)]
    assert len(points_markdown(found).splitlines()) == 4  # head, rule, the best and its tie


def test_every_point_has_a_row_also_one_in_no_comparison(sweep):
    found = table(sweep)
    drawn = points_html(found)
    assert len(found.rows) == len(points(sweep)) == drawn.count("data-point=")
    assert sorted(row.number for row in found.rows) == list(range(len(found.rows)))


def test_records_in_the_page_are_the_records(sweep):
    found = points(sweep)
    text = embedded(found)
    assert "<" not in text
    page = json.loads(text)
    for point, own in zip(found, page["points"], strict=True):
        for record, shown in zip(point.records, own, strict=True):
            expected = record.model_dump(mode="json", exclude_none=True)
            filled = {key: value for key, value in expected.items() if value not in ([], {})}
            assert whole_again(shown, page["shared"]) == filled
    parts = [json.dumps(part) for part in page["shared"]]
    assert len(set(parts)) == len(parts) > 0
