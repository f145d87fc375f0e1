"""From drawn samples to what one forward takes: groups of observations, a layout, questions.

It is made on the CPU. Observations alike in sensor, bands and shape are stacked to be read
together, whatever samples they are of; `Tokens.order` then puts the tokens of a sample together.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hpcgeo.data.labelled_batches import Bool, Drawn
from hpcgeo.data.sample import Channel
from hpcgeo.data.sampling.order import keys, uniform
from hpcgeo.data.sampling.packing import clusters, waste
from hpcgeo.data.transfer import sent
from hpcgeo.kinds.target import labelled
from hpcgeo.models.ragged import TokenLayout, packed, padded
from hpcgeo.models.tokenizers import ObservationGroup, Tokens
from hpcgeo.options import Batching
from hpcgeo.sensors import Band

POLARISATIONS = ("HH", "HV", "VH", "VV")

#: What one band is: from the facts, or from a file of the user.
Bands = Callable[[Channel], Band]

#: Bytes of which a tensor on a device begins at a multiple, as kernels that read it in words want.
ALIGNED = 64

#: Of an observation: its sample, and which one of it.
Position = tuple[int, int]

#: Makes the tokens of a pass of samples, and which of their tokens take part.
Collate = Callable[[Sequence[Drawn], Sequence[Sequence[Bool]]], tuple[Tokens, "Grouping"]]


@dataclass(frozen=True)
class Question:
    """What a head is asked of some samples of a pass.

    Attributes:
        task: its name.
        rows: (b,) which samples.
        target: (b, ...) labels, of dense tasks at the queries (b, Q, ...).
        group, members: of dense tasks, which group holds the first observations and (b,) where.
        queries: of dense tasks (b, Q, 2), pixels as fractions of the frame: down, right; None: all
            pixels of `frame`.
        frame: height and width of the target.
    """

    task: str
    rows: Tensor
    target: Tensor
    group: int = -1
    members: Tensor | None = None
    queries: Tensor | None = None
    frame: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Grouping:
    """Which observations are in which group: by group, the sample and number of each."""

    places: tuple[tuple[Position, ...], ...]

    @cached_property
    def _found(self) -> dict[Position, tuple[int, int]]:
        return {
            place: (group, member)
            for group, places in enumerate(self.places)
            for member, place in enumerate(places)
        }

    def find(self, sample: int, observation: int = 0) -> tuple[int, int]:
        """Return the group of an observation, and its number in it."""
        return self._found[sample, observation]


def tokens(
    drawn: Sequence[Drawn], batching: Batching, bands: Bands, visible: Sequence[Sequence[Bool]]
) -> tuple[Tokens, Grouping]:
    """Return the tokens of a pass, on the CPU.

    Args:
        drawn: the samples, S.
        batching: how unequal ones share a pass.
        bands: what is known of a channel.
        visible: of each observation of each sample, which tokens take part.
    """
    alike: dict[Any, list[Position]] = defaultdict(list)
    for sample, one in enumerate(drawn):
        for number, seen in enumerate(one.sample.observations):
            key = seen.channels, one.named[number], seen.patch, seen.values.shape
            alike[key].append((sample, number))
    grouping = Grouping(tuple(tuple(places) for places in alike.values()))
    groups = tuple(_group(drawn, places, bands, visible) for places in grouping.places)
    owners = [np.array([(sample, -1) for sample in range(len(drawn))]).reshape(-1, 2)]
    for places in grouping.places:
        counts = [int(visible[sample][number].sum()) for sample, number in places]
        owners.append(np.repeat(np.array(places).reshape(-1, 2), counts, axis=0))
    sample, number = np.concatenate(owners).T
    order = np.lexsort((number, sample))  # stable: within an observation as they were
    lengths = np.bincount(sample, minlength=len(drawn)).tolist() if len(drawn) else []
    place = np.array([one.sample.place for one in drawn], dtype=np.float64).reshape(-1, 2)
    height = np.array([one.sample.elevation_m for one in drawn], dtype=np.float64).reshape(-1, 2)
    return (
        Tokens(
            groups=groups,
            place=torch.from_numpy(place),
            place_spread_m=torch.tensor(
                [one.sample.place_spread_m for one in drawn], dtype=torch.float64
            ),
            height_m=torch.from_numpy(height),
            order=torch.from_numpy(order),
            layout=layout(lengths, batching),
        ),
        grouping,
    )


def layout(lengths: Sequence[int], batching: Batching) -> TokenLayout:
    """Return how samples of these lengths lie in a pass."""
    if batching.mode == "packed":
        return packed(lengths)
    return padded(lengths, _clusters(tuple(lengths), batching))


def padding(lengths: Sequence[int], batching: Batching) -> float:
    """Return the padding tokens of a pass."""
    wasted = waste(lengths, _clusters(tuple(lengths), batching), batching.mode)
    return sum(lengths) * wasted / (1 - wasted)


@lru_cache(maxsize=256)
def _clusters(lengths: tuple[int, ...], batching: Batching) -> list[list[int]]:
    """Return the clusters of a pass: found once, for its layout and for what it pads."""
    return clusters(lengths, batching.mode, batching.max_padding)


def questions(
    drawn: Sequence[Drawn], grouping: Grouping, num_queries: int | None, seed: int
) -> tuple[Question, ...]:
    """Return what the heads are asked of a pass.

    Args:
        num_queries: pixels of a dense sample, drawn from (seed, position); None: all of them.
        seed: of the run.
    """
    alike: dict[Any, list[int]] = defaultdict(list)
    for row, one in enumerate(drawn):
        sample = one.sample
        group = grouping.find(row)[0] if sample.dense else -1
        key = one.task, group, sample.dense, sample.target.shape
        alike[key].append(row)
    found = []
    for (task, group, dense, shape), rows in alike.items():
        question = Question(
            task,
            torch.tensor(rows),
            torch.from_numpy(np.stack([drawn[row].sample.target for row in rows])),
        )
        if dense:
            members = torch.tensor([grouping.find(row)[1] for row in rows])
            question = replace(question, group=group, members=members, frame=shape[-2:])
            if num_queries is not None:
                position = np.array([drawn[row].position for row in rows])
                question = _some(question, uniform(seed, position, "queries", num_queries))
        found.append(question)
    return tuple(found)


def _some(question: Question, chosen: Any) -> Question:
    """Return a dense question for the labelled pixels that uniform numbers (b, Q) choose."""
    flat = question.target.flatten(-2)  # (b, H W), or (b, K, H W) of numbers
    known = labelled(flat.numpy()).reshape(len(flat), -1, flat.shape[-1])
    pixels = np.empty(chosen.shape, dtype=np.int64)
    for row in range(len(flat)):
        there = known[row].any(0)  # (H W,)
        among = np.flatnonzero(there) if there.any() else np.arange(len(there))
        pixels[row] = among[(chosen[row] * len(among)).astype(np.int64)]
    pixel = torch.from_numpy(pixels)  # (b, Q)
    at = pixel if flat.ndim == 2 else pixel[:, None].expand(-1, flat.shape[1], -1)
    target = flat.gather(-1, at).movedim(-1, 1)  # (b, Q), or (b, Q, K)
    return replace(question, target=target, queries=centres(pixel, question.frame))


def drop_keys(drawn: Sequence[Drawn], seed: int) -> Tensor:
    """Return the number (S,) of each sample by which it skips blocks, from (seed, position)."""
    position = np.array([one.position for one in drawn], dtype=np.int64)
    return torch.from_numpy(keys(seed, position, "drop path").view(np.int64))


def centres(pixel: Tensor, frame: tuple[int, int]) -> Tensor:
    """Return the centres (..., 2) of pixels, counted row by row, as fractions of the frame."""
    H, W = frame
    down = (pixel // W + 0.5) / H
    return torch.stack([down, (pixel % W + 0.5) / W], dim=-1)


def moved(value: Any, device: torch.device) -> Any:
    """Return a value with all tensors in it on a device, in one copy."""
    tensors: list[Tensor] = []

    def found(tensor: Tensor) -> Tensor:
        tensors.append(tensor)
        return tensor

    _replaced(value, found)
    if device.type == "cpu" or not tensors:
        return value
    area, begins = packed_bytes(tensors, pinned=device.type == "cuda")
    [there], places = sent([area], device), iter(begins)
    return _replaced(value, lambda tensor: view_of(there, next(places), tensor))


def packed_bytes(tensors: Sequence[Tensor], *, pinned: bool) -> tuple[Tensor, list[int]]:
    """Return the bytes of tensors one behind the other, and where each begins."""
    ends = [*accumulate(-(-tensor.nbytes // ALIGNED) * ALIGNED for tensor in tensors)]
    area = torch.empty(ends[-1], dtype=torch.uint8, pin_memory=pinned)
    begins = [0, *ends[:-1]]
    for tensor, begin in zip(tensors, begins, strict=True):
        view_of(area, begin, tensor).copy_(tensor)
    return area, begins


def view_of(area: Tensor, begin: int, like: Tensor) -> Tensor:
    """Return the bytes from `begin` on as a tensor of that shape and type."""
    return area[begin : begin + like.nbytes].view(like.dtype).view(like.shape)


def _replaced(value: Any, by: Callable[[Tensor], Tensor]) -> Any:
    """Return a value with other tensors in it, asked for in order."""
    if isinstance(value, Tensor):
        return by(value)
    if isinstance(value, tuple):
        return tuple(_replaced(part, by) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: _replaced(getattr(value, f.name), by) for f in fields(value)}
        return replace(value, **parts)
    return value


def _group(
    drawn: Sequence[Drawn],
    places: Sequence[Position],
    bands: Bands,
    visible: Sequence[Sequence[Bool]],
) -> ObservationGroup:
    seen = [drawn[sample].sample.observations[number] for sample, number in places]
    samples = [drawn[sample].sample for sample, _ in places]
    first = seen[0]
    known = [bands(channel) for channel in first.channels]
    gsd, gsd_of = np.unique([one.gsd_m for one in seen], return_inverse=True)
    flags = np.zeros((len(seen), len(known), len(POLARISATIONS) + 1), dtype=np.float32)
    for number, band in enumerate(known):
        if band.polarisation is not None:
            flags[:, number, POLARISATIONS.index(band.polarisation)] = 1
            flags[:, number, -1] = [one.orbit for one in seen]
    kept = np.stack([visible[sample][number] for sample, number in places])
    return ObservationGroup(
        channels=first.channels,
        named=drawn[places[0][0]].named[places[0][1]],
        patch=first.patch,
        values=torch.from_numpy(np.stack([one.values for one in seen])),
        time=torch.from_numpy(np.stack([one.time for one in seen])),
        gsd_m=torch.from_numpy(gsd),
        gsd_of=torch.from_numpy(gsd_of),
        place=torch.tensor([sample.place for sample in samples], dtype=torch.float64),
        place_spread_m=torch.tensor(
            [sample.place_spread_m for sample in samples], dtype=torch.float64
        ),
        wavelength_nm=_column(known, "wavelength_nm"),
        bandwidth_nm=_column(known, "bandwidth_nm"),
        flags=torch.from_numpy(flags),
        kept=torch.from_numpy(np.flatnonzero(kept)),
        samples=torch.tensor([sample for sample, _ in places]),
    )


def _column(known: Sequence[Band], name: str) -> Tensor:
    values = [getattr(band, name) for band in known]
    return torch.tensor([torch.nan if v is None else v for v in values], dtype=torch.float64)


def whole(drawn: Sequence[Drawn]) -> list[tuple[Bool, ...]]:
    """Return what takes part where nothing is hidden: all that is not missing."""
    return [one.kept for one in drawn]
