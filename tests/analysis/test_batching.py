"""Modes of batching stand beside each other, with tokens per second and padding."""

import csv
import io

import pytest

from hpcgeo.measured import Spread
from hpcgeo_analysis.comparisons import compare
from hpcgeo_analysis.points import points
from hpcgeo_analysis.report import render
from hpcgeo_analysis.sections import batching

RATES = {"padding": (9_000.0, 0.6), "bins": (19_900.0, 0.05), "packed": (20_000.0, 0.0)}


@pytest.fixture
def mixed(whole):
    """Records of three modes on 1 and 2 devices, as runs on mixtures leave them."""

    def record(mode, devices, **fields):
        rate, padding = RATES[mode]
        rates = [factor * rate * devices for factor in (0.99, 1.0, 1.01)]
        tokens = {"tokens_per_s": Spread.of(rates), "padding": padding}
        config = {"data": {"tasks": {}, "batching": {"mode": mode, "max_padding": 64}}}
        unknown = dict.fromkeys(("chip", "bands", "model_flops", "mfu", "hfu", "executed_flops"))
        unknown |= {"predicted_memory": None, "data": "mixture", "objective": "multitask"}
        step_s = 2_000 / rate
        return whole("DDP", devices, step_s, **unknown | tokens | {"config": config} | fields)

    return [record(mode, devices) for mode in RATES for devices in (1, 2)]


def test_each_mode_is_a_line_of_one_comparison(mixed):
    (comparison,) = compare(points(mixed))
    assert set(comparison.lines) == {"DDP padding", "DDP bins", "DDP packed"}
    assert comparison.noun == "samples" and "8 samples per device" in comparison.title
    assert comparison.apart == ""


def test_who_computes_most_tokens_and_who_pads(mixed):
    (comparison,) = compare(points(mixed))
    assert batching.sentences(comparison.scaled) == [
        "On 2 devices DDP packed computes 40,000 tokens a second, the most of the 3 measured; "
        "DDP padding 18,000, the least (2.22 x).",
        "Within the spread of DDP packed: DDP bins.",
        "Up to 60 % of what is computed is padding: DDP padding.",
    ]
    alone = [scaled for scaled in comparison.scaled if scaled.line == "DDP packed"]
    assert batching.sentences(alone) == ["On 2 devices DDP packed computes 40,000 tokens a second."]


def test_the_section_has_a_table_and_a_figure(mixed):
    files = render(mixed)
    text = files["report.md"].decode()
    section = text.partition("## Batching")[2].partition("\n## ")[0]
    (row,) = [line for line in section.splitlines() if line.startswith("| DDP padding | 2 |")]
    assert "| 18,000 | 17,856 to 18,144 | 9,000 | 60 % | 0.500 |" in row
    assert not [line for line in text.splitlines() if "None" in line]
    assert "No MFU: steps of a mixture differ in their tokens" in text
    assert "images/s" not in text and "8 samples per device" in text
    assert "padding" in files["figures/tokens-1-vit_tiny.svg"].decode()
    (first, *_) = csv.DictReader(io.StringIO(files["table.csv"].decode()))
    assert float(first["tokens_per_s"]) in {rate for rate, _ in RATES.values()}


def test_modes_are_not_said_to_be_kept_apart(mixed):
    assert "data.batching.mode" not in render(mixed)["report.md"].decode()
