"""A run of elements of a parameter, as torch.distributed.checkpoint reads and writes it.

ZeRO flattens parameters and cuts the flat vector anywhere. In the parameter's own shape such a run
is a part of a row, whole rows, and a part of a row again: at most 2 n - 1 boxes in n dimensions,
each of them contiguous in memory. A checkpoint knows boxes alone, so nothing is ever gathered, and
whoever reads it need not know how it was cut.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Size, Tensor
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    MetadataIndex,
    TensorProperties,
)
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType


class Box(NamedTuple):
    """A part of a tensor."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]


class Segment(torch.Tensor):
    """What a rank holds of a parameter: a run of its elements, sharing memory with `flat`.

    It has the shape of the whole parameter and takes part in no arithmetic. It is a tensor because
    a checkpoint drops every leaf that is none.

    Attributes:
        start: place of its first element in the flattened parameter.
        flat: its elements, of one dimension; there may be none.
    """

    start: int
    flat: Tensor

    @staticmethod
    def __new__(cls, shape: Sequence[int], start: int, flat: Tensor) -> "Segment":
        """Return the segment of a parameter of that shape which begins at `start`."""
        segment: Segment = torch.Tensor._make_wrapper_subclass(
            cls, Size(shape), dtype=flat.dtype, device=flat.device
        )
        segment.start, segment.flat = start, flat
        return segment

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"Segment({tuple(self.shape)}, start={self.start}, {self.flat!r})"

    @classmethod
    def __torch_dispatch__(cls, operator: Any, *_: Any) -> Any:
        raise TypeError(f"{operator}: a segment takes part in no arithmetic")

    def parts(self) -> Iterator[tuple[Box, Tensor]]:
        """Yield each box and its elements, in the shape of the box."""
        first = 0
        for box in boxes(self.shape, self.start, self.start + self.flat.numel()):
            count = math.prod(box.sizes)
            yield box, self.flat[first : first + count].view(box.sizes)
            first += count

    def __create_write_items__(self, name: str, _: object) -> list[WriteItem]:
        properties = TensorProperties.create_from_tensor(self.flat)
        return [
            WriteItem(
                index=MetadataIndex(name, chunk.offsets),
                type=WriteItemType.SHARD,
                tensor_data=TensorWriteData(chunk=chunk, properties=properties, size=self.size()),
            )
            for chunk in self.__create_chunk_list__()
        ]

    def __create_chunk_list__(self) -> list[ChunkStorageMetadata]:
        return [
            ChunkStorageMetadata(offsets=Size(box.offsets), sizes=Size(box.sizes))
            for box, _ in self.parts()
        ]

    def __get_tensor_shard__(self, index: MetadataIndex) -> Tensor:
        return next(part for box, part in self.parts() if Size(box.offsets) == index.offset)


def boxes(shape: Sequence[int], start: int, stop: int) -> Iterator[Box]:
    """Yield the boxes of elements [start, stop) of a flattened tensor, in their order.

    >>> [(box.offsets, box.sizes) for box in boxes((4, 5), 3, 17)]
    [((0, 3), (1, 2)), ((1, 0), (2, 5)), ((3, 0), (1, 2))]
    """
    if start >= stop:
        return
    if not shape:
        yield Box((), ())
        return
    row = math.prod(shape[1:])
    first, last = -(-start // row), stop // row  # rows that are whole
    if first > last:
        yield from _in_row(shape, start, stop)
        return
    yield from _in_row(shape, start, first * row)
    if first < last:
        yield Box((first, *(0 for _ in shape[1:])), (last - first, *shape[1:]))
    yield from _in_row(shape, last * row, stop)


def _in_row(shape: Sequence[int], start: int, stop: int) -> Iterator[Box]:
    number, first = divmod(start, math.prod(shape[1:]))
    for box in boxes(shape[1:], first, first + stop - start):
        yield Box((number, *box.offsets), (1, *box.sizes))
