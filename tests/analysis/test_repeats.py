"""Runs that differ in their seed alone: means and spreads by hand, and what is no repeat."""

from hpcgeo_analysis.scores.board import board
from hpcgeo_analysis.scores.repeats import repeats
from tests.analysis.test_gains import TOOK, cells, scores


def test_means_and_spreads_by_hand() -> None:
    """`wealth` is an error: the lowest mean leads, and all its runs are ahead."""
    other = TOOK.model_copy(update={"objective": "mae"})
    rows = [
        ("equal-gfm-0", TOOK, {"scenes": 0.6, "wealth": 20.0}),
        ("equal-gfm-1", TOOK, {"scenes": 0.8, "wealth": 22.0}),
        ("equal-mae-0", other, {"scenes": 0.7, "wealth": 10.0}),
        ("equal-mae-1", other, {"scenes": 0.5, "wealth": 12.0}),
        ("public", None, {"scenes": 0.9, "wealth": 1.0}),
    ]
    found = repeats(board(scores(*rows)))
    assert found
    assert cells(found.table) == {
        "equal-gfm": ["2", "0.700 (0.600 to 0.800)", "21.00 (20.00 to 22.00)"],
        "equal-mae": ["2", "0.600 (0.500 to 0.700)", "11.00 (10.00 to 12.00)"],
    }
    assert found.answer == (
        "equal-gfm has the best mean of seeds on scenes (equal-mae within its spread); "
        "equal-mae has the best mean of seeds on wealth"
    )


def test_other_runs_are_no_repeats() -> None:
    """Of another name, of other steps, or without a pretraining."""
    longer = TOOK.model_copy(update={"steps": 20})
    named = [("a-0", TOOK, {"scenes": 0.6}), ("b-1", TOOK, {"scenes": 0.8})]
    assert repeats(board(scores(*named))) is None
    assert repeats(board(scores(("a-0", TOOK, {"s": 0.6}), ("a-1", longer, {"s": 0.8})))) is None
    assert repeats(board(scores(("a-0", None, {"s": 0.6}), ("a-1", None, {"s": 0.8})))) is None
    both = [(f"a-{n}", took, {"s": 0.1 * n}) for n, took in enumerate((TOOK, TOOK, longer, longer))]
    found = repeats(board(scores(*both)))
    assert found and list(cells(found.table)) == ["a, 20 steps", "a, 10 steps"]
