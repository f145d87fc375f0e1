"""Fitting the figures of a machine: what is put in comes out, what no record tells is said."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import yaml

from hpcgeo.errors import InputError
from hpcgeo.machines import machine
from hpcgeo.plan.calibrate import calibrate, deviation, one_point, scored
from hpcgeo.plan.calibration import Calibration, calibration_of
from hpcgeo.plan.cases import MeasuredStep, cases, forms_of_record
from tests.plan import foundry
from tests.plan.published import prefetching, steps

FRONTIER = machine("frontier")


def as_if(case: MeasuredStep, figures: Calibration) -> MeasuredStep:
    """Return a case whose record says what those figures predict."""
    rate = case.record.global_batch / case.predicted(figures).seconds
    return dataclasses.replace(
        case, record=case.record.model_copy(update={"images_per_s": rate}), odd=""
    )


def test_figures_that_made_the_steps_are_found() -> None:
    other = calibration_of(FRONTIER).model_copy(
        update={"matmul": 0.55, "width_passes": 100.0, "hop_us": 30.0, "hidden_alone": 0.3}
    )
    few = [case for case in steps() if case.record.nodes in (1, 8, 64)]
    made = [as_if(case, other) for case in few if case.record.model != "vit_1b_gated"]
    fitted = calibrate(made, FRONTIER, "made up")
    assert fitted.figures.matmul == pytest.approx(0.55, rel=0.03)
    assert fitted.figures.hop_us == pytest.approx(30, rel=0.25)
    assert max(abs(deviation(case, fitted.figures)) for case in made) < 0.02
    assert all(size < 0.05 for size in fitted.left_out.values())


def test_what_no_record_tells_is_said() -> None:
    """Steps of one node: nothing of the network between nodes."""
    alone = [case for case in steps() if case.record.nodes == 1]
    fitted = calibrate(alone, FRONTIER, "one node")
    assert {"hop_us", "tree_us"} <= set(fitted.loose)
    assert not {"matmul"} & set(fitted.loose)


def test_few_steps_claim_little() -> None:
    """Of one model and layout: nothing else was seen, the figures of replicas are not told."""
    few = [
        case
        for case in steps()
        if (case.record.model, case.record.layout) == ("vit_1b_gated", "FULL_SHARD")
    ]
    fitted = calibrate(few, FRONTIER, "few")
    assert {"hidden_beside", "tree_us"} <= set(fitted.loose)
    parts, world = fitted.figures.interval["parts"], fitted.figures.interval["world"]
    assert parts.near[1] == 1.5 and parts.far[1] == 2
    assert world.near[1] >= 1.2 and fitted.left_out == {}
    same = calibrate([few[0]] * 5, FRONTIER, "one, five times").figures.interval["world"]
    assert same.near[0] < 0.9 and same.near[1] > 1.2


def test_a_calibration_is_of_one_machine_and_whole(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    values = calibration_of(FRONTIER).model_dump(mode="json")
    for changed, rule in (
        ({"machine": "jupiter"}, "is of jupiter, not of frontier"),
        ({"interval": {"world": values["interval"]["world"]}}, "without parts, nodes"),
        (
            {"interval": values["interval"] | {"nodes": {"near": [1.5, 0.7], "far": [0.9, 1.1]}}},
            "does not hold 1",
        ),
        ({"out_gbs": float("inf")}, "finite"),
    ):
        file.write_text(yaml.safe_dump(values | changed))
        with pytest.raises(InputError, match=rule):
            calibration_of(FRONTIER, file)


def test_too_few_steps_are_refused() -> None:
    with pytest.raises(InputError, match="takes 4 or more"):
        calibrate(steps()[:3], FRONTIER, "three")


@pytest.mark.slow
def test_the_shipped_figures_are_those_of_the_records() -> None:
    """And a model that the fit did not see is predicted to 8 %."""
    fitted = calibrate([*steps(), *prefetching()], FRONTIER, "")
    shipped = calibration_of(FRONTIER)
    for name in ("matmul", "width_passes", "hop_us"):
        assert getattr(fitted.figures, name) == pytest.approx(getattr(shipped, name), rel=0.02)
    assert fitted.left_out.keys() == {"vit_1b_gated", "vit_3b_gated", "vit_5b_gated"}
    assert max(fitted.left_out.values()) < 0.08


def test_one_measured_step_fixes_the_arithmetic() -> None:
    """A device that computes a third slower than calibrated: one step of one node says so."""
    slow = calibration_of(FRONTIER)
    slow = slow.model_copy(
        update={"matmul": slow.matmul / 1.5, "width_passes": 1.5 * slow.width_passes}
    )
    one, *rest = [as_if(case, slow) for case in steps() if case.record.communication == "on"]
    found = one_point(one, calibration_of(FRONTIER), "bfloat16")
    assert max(abs(deviation(case, found)) for case in rest) < 0.01
    assert found.interval == calibration_of(FRONTIER).interval and "vit_1b" in found.probed


def test_a_probe_narrows_what_was_never_measured_and_must_be_possible() -> None:
    one = next(case for case in steps() if case.record.communication == "on")
    typical = calibration_of(machine("lumi-g"))
    assert not typical.calibrated
    found = one_point(one, typical, "bfloat16")
    near, far = found.interval["world"].near, found.interval["world"].far
    assert near[1] / near[0] < 1.4 < far[1] / far[0]
    with pytest.raises(InputError, match="of one node in float32"):
        one_point(one, typical, "float32")
    wide = next(case for case in steps() if case.record.nodes == 32)
    with pytest.raises(InputError, match="of 32 nodes"):
        one_point(wide, typical, "bfloat16")
    quick = one.record.model_copy(update={"images_per_s": 10 * (one.record.images_per_s or 0)})
    with pytest.raises(InputError, match="more than the peak of frontier allows"):
        one_point(dataclasses.replace(one, record=quick), typical, "bfloat16")


def test_odd_cells_are_named_without_a_prediction() -> None:
    """Collapsed lines of FULL_SHARD, dips of 5B's groups of four and of 1B's pairs on 64 nodes."""
    odd = {
        (case.record.model, case.record.layout, case.record.nodes): case.odd
        for case in steps()
        if case.odd
    }
    assert odd["vit_1b_gated", "FULL_SHARD", 128] == "collapsed"
    assert odd["vit_1b_gated", "HYBRID_SHARD(2)", 64] == "dip in nodes"
    assert odd["vit_5b_gated", "HYBRID_SHARD(4)", 32] == "dip in groups"
    assert sum(not scored(case) for case in steps()) == len(odd) + 16  # without exchange


def test_a_record_of_unknown_forms_is_no_case() -> None:
    record = steps()[0].record
    for changed in ({"model": "no_such"}, {"chip": None}, {"objective": "multitask"}):
        assert forms_of_record(record.model_copy(update=changed)) is None
        assert cases([record.model_copy(update=changed)]) == []
    assert cases([record.model_copy(update={"machine": "local"})]) == []
    assert cases([record.model_copy(update={"status": "failed"})]) == []


def test_interval_factors_hold_measured_over_predicted() -> None:
    figures = calibration_of(FRONTIER)
    for pattern in figures.interval.values():
        for low, high in (pattern.near, pattern.far):
            assert low < high and np.log(high / low) < 1


def test_a_second_machine() -> None:
    """Language models on H100, fitted to the 3B model alone: the others to 12 %, mean, and what a
    GPU keeps from 128 to 512 of them to 4 points."""
    where = machine("cuda-node")
    one = [case for case in foundry.steps() if case.record.model == "3b"]
    figures = calibrate(one, where, "3b").figures
    others = [case for case in foundry.steps() if case.record.model != "3b"]
    off = [abs(deviation(case, figures)) for case in others]
    assert len(off) == 32 and np.mean(off) < 0.12 and max(off) < 0.15
    for model in ("1b", "7b", "13b", "30b", "70b"):
        few, many = (
            next(c for c in others if c.record.model == model and c.record.world_size == gpus)
            for gpus in (128, 512)
        )
        kept = few.seconds / many.seconds
        predicted = few.predicted(figures).seconds / many.predicted(figures).seconds
        assert abs(predicted - kept) < 0.04, model
