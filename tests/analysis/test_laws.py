"""Scaling laws of scores: the power that made them, its interval, and where there is none."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import linregress, t

from hpcgeo.scores import Pretraining, read
from hpcgeo_analysis.scores.board import board
from hpcgeo_analysis.scores.figures import by_energy, by_flops, by_node_hours
from hpcgeo_analysis.scores.laws import laws

SCORES = Path(__file__).parent / "golden" / "scores.jsonl"
COSTS = (1e15, 4e15, 2e16, 1e17)


def trained(errors, *, costs=COSTS, better="higher", **of):
    """Return scores of models that were pretrained with some cost and have some error."""
    first = next(iter(read(SCORES)))
    made = []
    for number, (error, cost) in enumerate(zip(errors, costs, strict=True)):
        took = Pretraining(
            **{"objective": "mae", "data": "d", "steps": 9, "samples": 9, "flops": cost}
            | {"node_hours": cost / 1e15, "kwh": None, "nodes": 1, "device": "a GPU"}
            | of
        )
        value = 1 - error if better == "higher" else error
        fields = {"value": value, "low": value - 0.01, "high": value + 0.01, "better": better}
        fields |= {"fingerprint": f"{number}", "pretraining": took, "parameters": 10**6 * 4**number}
        made.append(first.model_copy(update=fields))
    return made


def flops(score):
    return score.pretraining and score.pretraining.flops


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_a_power_law_is_found(better) -> None:
    [(objective, law)] = laws(trained([2e3 * c**-0.25 for c in COSTS], better=better), flops)
    assert objective == "mae"
    assert (law.exponent, law.factor) == (pytest.approx(0.25), pytest.approx(2e3))
    assert law.low == pytest.approx(0.25) and law.high == pytest.approx(0.25)
    error = 2e3 * 5e15**-0.25
    assert law.at(5e15) == pytest.approx(1 - error if better == "higher" else error)


def test_the_interval_is_that_of_the_slope() -> None:
    errors = [0.5, 0.42, 0.36, 0.22]
    [(_, law)] = laws(trained(errors), flops)
    fit = linregress(np.log(COSTS), np.log(errors))
    off = t.ppf(0.975, 2) * fit.stderr
    assert law.exponent == pytest.approx(-fit.slope)
    assert (law.low, law.high) == pytest.approx((-fit.slope - off, -fit.slope + off))
    assert law.words("FLOPs").startswith("error ~ FLOPs^")


def test_what_does_not_fall_is_said() -> None:
    [(_, law)] = laws(trained([0.3, 0.4, 0.2, 0.35]), flops)
    assert law.low < 0 < law.high and law.words("FLOPs").startswith("no power law of FLOPs")


def test_unlike_models_share_no_law() -> None:
    two = trained([0.5, 0.4], costs=COSTS[:2])
    assert not [*laws(two, flops)]
    other = trained([0.3, 0.2], costs=COSTS[2:], objective="masked_tokens")
    assert not [*laws([*two, *other], flops)]
    assert not [*laws(trained([0.5, 0.4, 0.3], costs=(1e15,) * 3), flops)]
    assert not [*laws(trained([0.5, 0.4, 0.3], costs=(1e15, 1.1e15, 1.2e15)), flops)]
    longer = trained([0.3, 0.2], costs=COSTS[2:], samples=18)
    assert [*laws([*two, *longer], flops)]  # more samples are more FLOPs
    assert not [*laws([*two, *longer], flops, of_size=True)]
    perfect = trained([0.0, 0.1, -1.0], costs=COSTS[:3])  # an error of none, and one below it
    assert not [*laws(perfect, flops)]


def test_the_page_shows_score_against_cost() -> None:
    made = board(trained([0.5, 0.42, 0.36, 0.22]))
    figure = by_flops(made)
    assert figure and any("error ~ FLOPs^" in sentence for sentence in figure.sentences)
    assert "100 PFLOPs" in figure.title.replace(" P", " P") and by_node_hours(made)
    assert by_energy(made) is None  # no counter


def test_the_least_is_of_those_whose_cost_is_known() -> None:
    scores = trained([0.5, 0.42, 0.36, 0.22])
    public = scores[0].model_copy(
        update={"pretraining": None, "fingerprint": "p", "value": 0.99, "low": 0.98, "high": 1.0}
    )
    figure = by_flops(board([*scores, public]))
    assert figure and figure.title.endswith("100 PFLOPs; not known of 1 encoder")
