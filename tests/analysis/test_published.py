"""The published points of Frontier: the report says what their paper shows, and nothing else."""

from pathlib import Path

import pytest

from hpcgeo.records import read
from hpcgeo_analysis.report import render

RECORDS = Path(__file__).parents[2] / "profiles" / "records" / "frontier"


@pytest.fixture(scope="module")
def text() -> str:
    return render(read([RECORDS]))["report.md"].decode()


def test_which_strategy_serves_which_model(text):
    assert (
        "- Highest rate on 1,024 devices (frontier, 32 images per device and step, bfloat16): "
        "HYBRID_SHARD(1) for vit_base_gated, vit_huge_gated, vit_1b_gated and vit_3b_gated; "
        "HYBRID_SHARD(8) for vit_5b_gated; no spread given." in text
    )


def test_full_shard_is_best_or_level_on_few_nodes(text):
    for sentence in (
        "and HYBRID_SHARD(2) cannot be told apart for vit_1b_gated on 16 and 32 devices (less than "
        "5.0 % apart, no spread given): 776 images/s on 32 of FULL_SHARD, the highest.",
        "976 images/s on 32 of FULL_SHARD, the highest.",
        "FULL_SHARD has the highest rate for vit_3b_gated on 8 devices: 83.0 images/s",
    ):
        assert sentence in text


@pytest.mark.parametrize(
    ("share", "between", "messages"),
    [
        (53, "16 and 32 nodes (128 and 256 devices), from 80 % to 38 %", "111 KB to 55.7 KB"),
        (45, "32 and 64 nodes (256 and 512 devices), from 92 % to 51 %", "155 KB to 77.3 KB"),
        (32, "32 and 64 nodes (256 and 512 devices), from 92 % to 62 %", "223 KB to 111 KB"),
        (25, "32 and 64 nodes (256 and 512 devices), from 95 % to 71 %", "748 KB to 374 KB"),
    ],
    ids=["base", "huge", "1b", "3b"],
)
def test_full_shard_collapses(text, share, between, messages):
    begin = f"FULL_SHARD loses {share} % of its throughput per device between {between} of"
    (line,) = [line for line in text.splitlines() if begin in line]
    assert f"its all_gather messages fall from {messages} a rank (computed:" in line


def test_a_source_that_gives_no_spread_claims_nothing(text):
    assert "is fastest" not in text
    made = text[text.index("## How each number was made") :]
    assert "- Published: as printed by the source" in made
    assert "median step" not in made and "last made |" not in made


def test_hybrid_shard_of_one_scales(text):
    kept = [line for line in text.splitlines() if "throughput per device kept" in line]
    shares = [line.split("HYBRID_SHARD(1) ")[1].split(" %")[0] for line in kept if "(1)" in line]
    assert shares == ["103", "99.7", "102", "102"]


def test_ddp_stands_apart(text):
    assert "dtype: DDP float32; others bfloat16." in text
    assert (
        "Without a rival in its setting, so not ranked: DDP (float32) of vit_base_gated, "
        "vit_huge_gated, vit_1b_gated and vit_3b_gated." in text
    )
