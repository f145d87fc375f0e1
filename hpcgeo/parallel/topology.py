"""Where every rank runs, and how a strategy divides them: the mesh, and its map in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from hpcgeo.machines import Device
from hpcgeo.parallel.device import row_of
from hpcgeo.strategies import Layout, Strategy

#: Axes of the mesh, the last one over the nearest ranks: it talks the most.
AXES = ("dp_replicate", "dp_shard", "tp")

#: Groups shown of an axis.
SHOWN = 4


@dataclass(frozen=True)
class RankPlace:
    """Where a rank runs."""

    host: str
    local_rank: int
    package: int  #: number of the package of its device on that host


@dataclass(frozen=True)
class Topology:
    """The place of this rank, and how the ranks are divided.

    Attributes:
        order: the ranks by host and device, so that neighbours in it are near each other, whatever
            order the launcher dealt them in: a group fills a package, then a node, then more.
        places: of every rank.
        model: the row of this rank's device; None: a host, or a GPU that nobody knows.
    """

    rank: int
    device: torch.device
    strategy: Strategy
    layout: Layout
    order: tuple[int, ...]
    places: tuple[RankPlace, ...]
    model: Device | None = None

    @property
    def world_size(self) -> int:
        """All ranks."""
        return len(self.order)

    @property
    def local_size(self) -> int:
        """Ranks of this one's host."""
        return sum(place.host == self.places[self.rank].host for place in self.places)

    @property
    def data_rank(self) -> int:
        """Number of this rank among those that read samples of their own."""
        return self.data_rank_of(self.rank)

    def data_rank_of(self, rank: int) -> int:
        """Return the number of a rank among those that read samples of their own."""
        return self.order.index(rank) // self.layout.tp

    @cached_property
    def mesh(self) -> DeviceMesh:
        """The mesh of the axes over more than one rank, and dp_shard, which FSDP2 wants always."""
        return self._mesh(self.layout)

    @cached_property
    def mesh_of_copies(self) -> DeviceMesh:
        """The mesh of what is cut over no data-parallel ranks, whatever the strategy cuts."""
        return self._mesh(Layout(self.layout.data_parallel, 1, self.layout.tp))

    def _mesh(self, layout: Layout) -> DeviceMesh:
        sizes = dict(zip(AXES, layout, strict=True))
        axes = [axis for axis in AXES if axis == "dp_shard" or sizes[axis] > 1]
        return DeviceMesh(
            self.device.type,
            torch.tensor(self.order).reshape([sizes[axis] for axis in axes]),
            mesh_dim_names=tuple(axes),
        )

    def size(self, axis: str) -> int:
        """Return the ranks along an axis."""
        return self.layout[AXES.index(axis)]

    def __str__(self) -> str:
        """The division, and which ranks share what: a line an axis."""
        sizes = " x ".join(f"{size} {axis}" for size, axis in zip(self.layout, AXES, strict=True))
        lines = [f"{self.strategy.name}: {self.world_size} {self.device.type} ranks = {sizes}"]
        for axis, size in zip(AXES, self.layout, strict=True):
            if size > 1:
                groups = self._groups(axis)
                shown = " | ".join(_ranges(group) for group in groups[:SHOWN])
                more = f" | ... {len(groups)} groups" if len(groups) > SHOWN else ""
                spans = " or ".join(sorted({self._span(group) for group in groups}))
                lines.append(f"{axis:<13} {spans}: {shown}{more}")
        return "\n  ".join(lines)

    def _groups(self, axis: str) -> list[list[int]]:
        ranks = torch.tensor(self.order).reshape(self.layout)
        lines = ranks.movedim(AXES.index(axis), -1).reshape(-1, ranks.shape[AXES.index(axis)])
        return [[int(rank) for rank in line] for line in lines]

    def _span(self, group: Sequence[int]) -> str:
        hosts = {self.places[rank].host for rank in group}
        if len(hosts) > 1:
            return f"over {len(hosts)} nodes"
        packages = {self.places[rank].package for rank in group}
        return "in a package" if len(packages) == 1 else "in a node"


def lay_out(
    rank: int,
    local_rank: int,
    host: str,
    device: torch.device,
    strategy: Strategy,
    layout: Layout,
    own: Mapping[str, Device] = MappingProxyType({}),
) -> Topology:
    """Return the topology; every rank calls it, after `join`, with its own place.

    Args:
        rank, local_rank, host, device: of this rank.
        strategy, layout: of all.
        own: devices that the machine's file knows.
    """
    model = row_of(device, own)
    places = placed(host, local_rank, model)
    return Topology(rank, device, strategy, layout, near_first(places), places, model)


def placed(host: str, local_rank: int, model: Device | None) -> tuple[RankPlace, ...]:
    """Return where every rank runs; every rank calls it with its own place.

    A device that nobody knows has a package for itself.
    """
    mine = RankPlace(host, local_rank, local_rank // (model.per_package if model else 1))
    places: list[RankPlace] = [mine] * dist.get_world_size()
    dist.all_gather_object(places, mine)
    return tuple(places)


def near_first(places: Sequence[RankPlace]) -> tuple[int, ...]:
    """Return the ranks host by host, on each in the order of their devices."""
    first: dict[str, int] = {}
    for rank, place in enumerate(places):
        first.setdefault(place.host, rank)
    by_place = [(first[place.host], place.local_rank, rank) for rank, place in enumerate(places)]
    return tuple(rank for *_, rank in sorted(by_place))


def _ranges(ranks: Sequence[int]) -> str:
    """Return ranks in short: ``0-3``, ``0,2,4,6``, ``0,2,4,... (64 ranks)``."""
    if len(ranks) > 2 and list(ranks) == list(range(ranks[0], ranks[0] + len(ranks))):
        return f"{ranks[0]}-{ranks[-1]}"
    if len(ranks) > 8:
        return f"{','.join(map(str, ranks[:3]))},... ({len(ranks)} ranks)"
    return ",".join(map(str, ranks))
