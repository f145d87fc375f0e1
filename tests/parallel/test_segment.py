"""Runs of elements as boxes."""

import math
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from hypothesis import given
from hypothesis import strategies as st

from hpcgeo.parallel.segment import Segment, boxes
from tests.distributed import on_ranks

RUNS = st.lists(st.integers(1, 5), max_size=4).flatmap(
    lambda shape: st.tuples(
        st.just(tuple(shape)),
        st.lists(st.integers(0, math.prod(shape)), min_size=2, max_size=2).map(sorted),
    )
)


@given(RUNS)
def test_boxes_are_the_run_in_its_order(run: tuple[tuple[int, ...], list[int]]) -> None:
    shape, (start, stop) = run
    whole = torch.arange(math.prod(shape)).reshape(shape)
    parts = list(boxes(shape, start, stop))
    assert len(parts) <= max(1, 2 * len(shape) - 1)
    found = []
    for box in parts:
        place = tuple(slice(a, a + n) for a, n in zip(box.offsets, box.sizes, strict=True))
        assert whole[place].shape == box.sizes
        found += whole[place].flatten().tolist()
    assert found == list(range(start, stop))


def write(folder: str, cut: int) -> None:
    """Two ranks write a tensor of 3 x 4 x 5, cut anywhere."""
    whole = torch.arange(60.0)
    rank = torch.distributed.get_rank()
    start, stop = [(0, cut), (cut, 60)][rank]
    dcp.save({"a": {"x": Segment((3, 4, 5), start, whole[start:stop])}}, checkpoint_id=folder)


def read(folder: str, cuts: list[int]) -> tuple[list[float], list[float]]:
    """Every rank reads its run, and the whole as a tensor."""
    rank = torch.distributed.get_rank()
    own = torch.full((cuts[rank + 1] - cuts[rank],), -1.0)
    whole = torch.zeros(3, 4, 5)
    dcp.load({"a": {"x": Segment((3, 4, 5), cuts[rank], own)}}, checkpoint_id=folder)
    dcp.load({"a": {"x": whole}}, checkpoint_id=folder)
    return own.tolist(), whole.flatten().tolist()


def test_segments_are_read_as_other_segments_and_as_tensors(tmp_path: Path) -> None:
    folder = str(tmp_path / "checkpoint")
    on_ranks(write, 2, folder, 33)
    answers = on_ranks(read, 3, folder, [0, 7, 7, 60])
    for (own, whole), start, stop in zip(answers, (0, 7, 7), (7, 7, 60), strict=True):
        assert own == list(range(start, stop))
        assert whole == list(range(60))
