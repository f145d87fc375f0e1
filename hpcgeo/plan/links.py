"""The links of a measured machine: latency, bandwidth and cliffs of each collective, as a file.

`hpcgeo-profile collectives --machine-file` writes it, a planner reads it. Sizes and bandwidths
follow nccl-tests: message and algorithm bandwidth as in `hpcgeo.records.Traffic`.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from hpcgeo.errors import InputError
from hpcgeo.files import write_text
from hpcgeo.measured import Transfer
from hpcgeo.records import LinksRecord
from hpcgeo.tables import brief, checked, own

#: A larger message that takes less than a best smaller one's bandwidth over this is over a cliff.
CLIFF = 2.0

METHOD = (
    "seconds = latency_s + message_bytes / bandwidth_bytes_per_s (Hockney 1994, Parallel Computing "
    "20, 389), least squares of the relative deviation over the median of every size; sizes inside "
    "a cliff that recovers are left out; all groups of a kind at once, slowest rank"
)

Collective = Literal["all_reduce", "all_gather", "reduce_scatter"]
Group = Literal["pair", "node", "all"]

_UNITS = {"": 1} | {
    f"{letter}{kind}": base**power
    for kind, base in (("b", 1000), ("ib", 1024))
    for power, letter in enumerate(("", "k", "m", "g", "t"))
    if letter or kind == "b"
}


class LinksPart(BaseModel):
    """A strict, immutable piece of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LinkPoint(LinksPart):
    """One size: seconds of a call, slowest rank."""

    message_bytes: PositiveInt
    seconds: PositiveFloat = Field(description="median")
    p10_s: PositiveFloat
    p90_s: PositiveFloat

    @property
    def bytes_per_s(self) -> float:
        """Algorithm bandwidth."""
        return self.message_bytes / self.seconds


class Cliff(LinksPart):
    """Where larger messages take a lower bandwidth than a smaller one, beyond their spread."""

    from_bytes: PositiveInt = Field(description="the smaller message of the best bandwidth")
    from_bytes_per_s: PositiveFloat
    begins_bytes: PositiveInt = Field(description="first size over the cliff")
    lowest_bytes: PositiveInt = Field(description="size of the lowest bandwidth")
    lowest_bytes_per_s: PositiveFloat
    recovers_bytes: PositiveInt | None = Field(
        None, description="first size that is back; None: not up to the largest measured"
    )

    def __str__(self) -> str:
        back = self.recovers_bytes
        end = f"recovers at {in_words(back)}" if back else "does not recover at any size measured"
        return (
            f"bandwidth falls from {_rate(self.from_bytes_per_s)} at {in_words(self.from_bytes)} "
            f"to {_rate(self.lowest_bytes_per_s)} at {in_words(self.lowest_bytes)}, {end}"
        )


class Curve(LinksPart):
    """A collective over one kind of group: what was measured, and what is made of it."""

    collective: Collective
    group: Group
    ranks: PositiveInt
    nodes: PositiveInt
    latency_s: float = Field(ge=0)
    bandwidth_bytes_per_s: PositiveFloat | None = Field(
        description="None: time does not grow with size, larger messages would tell"
    )
    residual: float = Field(
        ge=0, description="root mean square of the fit's relative deviation, of the sizes it fits"
    )
    cliffs: list[Cliff] = []
    points: list[LinkPoint] = Field(min_length=1)

    @property
    def title(self) -> str:
        """The collective and its ranks."""
        return f"{self.collective} over {self.group} ({self.ranks} ranks)"

    def __str__(self) -> str:
        rate, last = self.bandwidth_bytes_per_s, in_words(self.points[-1].message_bytes)
        grows = f"then {_rate(rate)}" if rate else f"no more for {last}: try larger messages"
        return (
            f"{self.title}: {self.latency_s * 1e6:,.1f} us, {grows}; a size deviates by "
            f"{self.residual:.0%}"
        )

    def sentences(self) -> list[str]:
        """Return a sentence for every cliff."""
        return [f"{self.title}: {cliff}" for cliff in self.cliffs]


class MeasuredLinks(LinksPart):
    """What links gave, and where the figures come from."""

    version: Literal[1] = 1
    machine: str
    device: str
    backend: str
    nodes: PositiveInt
    world_size: PositiveInt
    method: str
    curves: list[Curve]
    hosts: list[str] = []
    versions: dict[str, str] = {}
    environment: dict[str, str] = {}
    driver: str | None = None
    commit: str | None = None
    dirty: bool | None = None
    command: str | None = None
    created: str
    source: str | None = None

    def curve(self, collective: Collective, group: Group) -> Curve:
        """Return a curve; of a group that was the same as a wider one, the wider one's.

        Raises:
            InputError: it was not measured.
        """
        order = ("pair", "node", "all")
        for wider in order[order.index(group) :]:
            for curve in self.curves:
                if (curve.collective, curve.group) == (collective, wider):
                    return curve
        raise InputError(
            f"{collective} over {group} was not measured on {self.machine}: measure it with "
            f"`hpcgeo-profile collectives --machine-file FILE.yaml`"
        )


def of(links: LinksRecord) -> MeasuredLinks:
    """Return what a record of transfers says of the links."""
    found: dict[tuple[Collective, Group], list[Transfer]] = {}
    for transfer in links.transfers:
        found.setdefault((transfer.collective, transfer.group), []).append(transfer)
    same = links.model_dump(exclude={"schema_version", "kind", "transfers"})
    return MeasuredLinks(**same, method=METHOD, curves=[_curve(rows) for rows in found.values()])


def write(path: Path, links: MeasuredLinks) -> None:
    """Write the file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = (
        "# Measured links of a machine; written by `hpcgeo-profile collectives --machine-file`.\n"
    )
    values = links.model_dump(mode="json")
    write_text(path, head + yaml.safe_dump(values, sort_keys=False, width=100))


def read(path: Path) -> MeasuredLinks:
    """Read such a file.

    Raises:
        InputError: no such file, or a line that breaks a rule.
    """
    return checked(MeasuredLinks, own(path, "machine file"), f"machine file {path}")


def fit(sizes: Sequence[int], seconds: Sequence[float]) -> tuple[float, float | None, float]:
    """Return latency (s), bandwidth (B/s) and the residual of Hockney's line through points.

    Every point counts by its relative deviation: a long message says no more than a short one.

    Args:
        sizes: bytes.
        seconds: one for each size.
    """
    m, t = np.asarray(sizes, dtype=float), np.asarray(seconds, dtype=float)
    line = np.stack([1 / t, m / t], axis=1)  # (points, 2): of latency and seconds a byte
    latency, per_byte = np.linalg.lstsq(line, np.ones_like(t), rcond=None)[0]
    if latency < 0:  # no line has a negative end: the best one through zero
        latency, per_byte = 0.0, (m / t).sum() / ((m / t) ** 2).sum()
    if per_byte <= 0 or len(set(sizes)) < 2:
        latency, per_byte = (1 / t).sum() / ((1 / t) ** 2).sum(), 0.0
    residual = float(np.sqrt(np.mean((line @ [latency, per_byte] - 1) ** 2)))
    return float(latency), float(1 / per_byte) if per_byte else None, residual


def cliffs(points: Sequence[LinkPoint]) -> list[Cliff]:
    """Return where bandwidth falls by more than `CLIFF` while messages grow.

    The fastest tenth over the cliff must be slower than the slowest tenth before it.

    Args:
        points: in the order of their sizes.
    """
    found: list[Cliff] = []
    best, over = points[0], list[LinkPoint]()
    for point in points[1:]:
        low = point.bytes_per_s * CLIFF < best.bytes_per_s
        apart = point.message_bytes / point.p10_s < best.message_bytes / best.p90_s
        if low and (apart or over):
            over.append(point)
        elif over:
            found.append(_cliff(best, over, point))
            best, over = point, []
        if point.bytes_per_s > best.bytes_per_s:
            best = point
    if over:
        found.append(_cliff(best, over, None))
    return found


def bytes_of(text: str) -> int:
    """Return the bytes of a size with a unit: K, M, G, T with B (1000) or iB (1024).

    >>> bytes_of("24KB"), bytes_of("64 MiB"), bytes_of("512")
    (24000, 67108864, 512)

    Raises:
        InputError: it is no size.
    """
    match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,15})?)\s*([a-z]*)\s*", text.lower(), re.ASCII)
    if not match or match[2] not in _UNITS or float(match[1]) * _UNITS[match[2]] < 1:
        raise InputError(
            f"{brief(text)} is no size: write a number with B, KB, MB, GB (powers of 1000) or KiB, "
            f"MiB, GiB (of 1024), e.g. 64MiB"
        )
    return round(float(match[1]) * _UNITS[match[2]])


def in_words(num_bytes: int) -> str:
    """Return a size with a unit, in powers of 1024 where it is a multiple.

    >>> in_words(2097152), in_words(24000), in_words(516)
    ('2 MiB', '24 KB', '516 B')
    """
    for unit in ("TiB", "TB", "GiB", "GB", "MiB", "MB", "KiB", "KB"):
        if num_bytes % _UNITS[unit.lower()] == 0:
            return f"{num_bytes // _UNITS[unit.lower()]:,} {unit}"
    return f"{num_bytes:,} B"


def _curve(rows: Sequence[Transfer]) -> Curve:
    points = [
        LinkPoint(
            message_bytes=row.message_bytes,
            seconds=row.seconds.median,
            p10_s=row.seconds.p10,
            p90_s=row.seconds.p90,
        )
        for row in sorted(rows, key=lambda row: row.message_bytes)
    ]
    falls = cliffs(points)
    even = [point for point in points if not any(_inside(point, cliff) for cliff in falls)]
    sizes, seconds = [p.message_bytes for p in even], [p.seconds for p in even]
    latency_s, bandwidth, residual = fit(sizes, seconds)
    return Curve(
        **rows[0].model_dump(include={"collective", "group", "ranks", "nodes"}),
        latency_s=latency_s,
        bandwidth_bytes_per_s=bandwidth,
        residual=residual,
        cliffs=falls,
        points=points,
    )


def _inside(point: LinkPoint, cliff: Cliff) -> bool:
    end = cliff.recovers_bytes
    return end is not None and cliff.begins_bytes <= point.message_bytes < end


def _cliff(best: LinkPoint, over: Sequence[LinkPoint], back: LinkPoint | None) -> Cliff:
    lowest = min(over, key=lambda point: point.bytes_per_s)
    return Cliff(
        from_bytes=best.message_bytes,
        from_bytes_per_s=best.bytes_per_s,
        begins_bytes=over[0].message_bytes,
        lowest_bytes=lowest.message_bytes,
        lowest_bytes_per_s=lowest.bytes_per_s,
        recovers_bytes=back.message_bytes if back else None,
    )


def _rate(bytes_per_s: float) -> str:
    return f"{bytes_per_s / 1e9:.3g} GB/s"
