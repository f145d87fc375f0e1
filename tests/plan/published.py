"""The published steps of the Frontier study, as a plan takes them."""

from functools import cache
from pathlib import Path

from hpcgeo.plan.cases import MeasuredStep, cases
from hpcgeo.records import read

FRONTIER = Path(__file__).parents[2] / "profiles/records/frontier"


@cache
def steps() -> list[MeasuredStep]:
    """Return all of them in bfloat16, of the models from a billion parameters."""
    return [
        case
        for case in cases(read([FRONTIER / "records-published.jsonl"]))
        if case.record.dtype == "bfloat16"
        and case.record.model in ("vit_1b_gated", "vit_3b_gated", "vit_5b_gated")
    ]


@cache
def prefetching() -> list[MeasuredStep]:
    """Return those of the study of prefetching."""
    return cases(read([FRONTIER / "records-prefetch.jsonl"]))
