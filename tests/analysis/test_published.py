"""The published points of Frontier: the report says what their paper shows, and nothing else."""

from pathlib import Path

import pytest

from hpcgeo.records import read
from hpcgeo_analysis.report import render

RECORDS = Path(__file__).parents[2] / "profiles" / "records" / "frontier"


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return render(read([RECORDS]))


@pytest.fixture(scope="module")
def text(files) -> str:
    return files["report.md"].decode()


def test_the_answer(text):
    assert text.startswith("# ViT on Frontier: replicate to 3B, shard inside a node at 5B\n")
    assert (
        "207 published points on 8 to 1,024 devices. No spread given: rates within 5 % tie" in text
    )


def test_the_map_of_winners(text):
    """FULL_SHARD on few nodes, copies on many: but for 5B, which needs a group of 8."""
    rows = {
        line.split(" | ")[0][2:]: line.strip("| ").split(" | ")[1:]
        for line in text[text.index("The fastest strategy of each model") :].splitlines()
        if " | " in line
    }
    assert rows["devices"] == ["8", "16", "32", "64", "128", "256", "512", "1,024"]
    assert [cell.split()[0] for cell in (rows["3B"][0], rows["3B"][-1])] == ["F", "N"]
    assert rows["5B"][-1].split()[0] == "H8"
    assert not [cell for row in rows.values() for cell in row if cell.startswith("H1")]


def test_where_it_breaks(text):
    assert (
        "- **It breaks here: \N{MINUS SIGN}53 %.** FULL_SHARD of Base per device, from 128 to 256"
        in text
    )
    assert "messages fall to 55.7 KB" in text
    assert "Also Huge \N{MINUS SIGN}45 % at 512, 1B \N{MINUS SIGN}32 % at 512, 3B" in text


def test_a_source_that_gives_no_spread_claims_nothing(text):
    assert "is fastest" not in text and " beats " not in text
    made = text[text.index("## How each number was made") :]
    assert "- Published: as printed by the source" in made
    assert "median step" not in made


def test_what_exchanged_no_gradients_is_no_candidate(files):
    rows = [row for row in files["report.md"].decode().splitlines() if "HYBRID_SHARD(1) |" in row]
    assert rows == []  # the best and their ties
    assert files["table.csv"].decode().count("HYBRID_SHARD(1)") == 32
    assert b'data-line="HYBRID_SHARD(1)"' in files["report.html"]


def test_ddp_stands_apart(text):
    assert "dtype: DDP float32; others bfloat16." in text
