"""What a plan takes from measurements: a handful of physical figures of a machine, with errors.

A row of facts/calibrations.yaml, or a file that `hpcgeo plan calibrate` wrote. A machine without a
row has the typical figures, its links at the peak of its data sheet times a usual share, and wide
intervals.
"""

from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    field_validator,
    model_validator,
)

from hpcgeo.errors import InputError
from hpcgeo.machines import Machine
from hpcgeo.tables import checked, own, read

#: What is fitted, in the order of the fields.
FITTED = (
    "matmul",
    "width_passes",
    "hop_us",
    "out_gbs",
    "node_gbs",
    "tree_us",
    "hidden_alone",
    "hidden_beside",
)


#: Nodes from which on steps are less alike: intervals are of both sides.
FAR = 32

#: How ranks share and exchange: all share with all; replicas of groups smaller than a node;
#: replicas of single ranks or of groups of whole nodes.
Pattern = Literal["world", "parts", "nodes"]
PATTERNS: tuple[Pattern, ...] = get_args(Pattern)

#: A pair of factors: measured over predicted seconds.
Factors = tuple[PositiveFloat, PositiveFloat]


class Interval80(BaseModel):
    """Factors between which eight of ten measured steps lie, over the predicted one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    near: Factors = Field(description=f"to {FAR} nodes")
    far: Factors = Field(description="beyond")

    @model_validator(mode="after")
    def _around_one(self) -> "Interval80":
        for low, high in (self.near, self.far):
            if not low <= 1 <= high:
                raise ValueError(f"[{low:g}, {high:g}] does not hold 1, the predicted step itself")
        return self

    def factors(self, nodes: int) -> Factors:
        """Return the factors for so many nodes."""
        return self.far if nodes > FAR else self.near


class Calibration(BaseModel):
    """The figures."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    machine: str = Field("", description="that was measured; empty: none")

    matmul: float = Field(gt=0, le=1, description="of the peak that matrix products reach")
    width_passes: float = Field(
        gt=0,
        description="widths of a token that a block's forward reads and writes, beside its MLP",
    )
    hop_us: float = Field(ge=0, description="latency of a hop of a ring beyond a node")
    out_gbs: PositiveFloat = Field(description="GB/s that collectives reach out of a node")
    node_gbs: PositiveFloat = Field(description="GB/s of a device inside a node")
    tree_us: float = Field(ge=0, description="latency of an all-reduce for each doubling of nodes")
    hidden_alone: float = Field(
        ge=0, le=1, description="of hidden communication, what it costs all the same"
    )
    hidden_beside: float = Field(
        ge=0, le=1, description="the same where replicas exchange too, over a second communicator"
    )
    interval: dict[Pattern, Interval80]
    deviations: dict[str, float] = Field({}, description="standard deviations of the fit")
    source: str
    probed: str = Field("", description="the measured step that the arithmetic is taken from")

    @property
    def calibrated(self) -> bool:
        """Whether the machine itself was measured."""
        return bool(self.machine)

    @field_validator("interval")
    @classmethod
    def _every_pattern(cls, value: dict[Pattern, Interval80]) -> dict[Pattern, Interval80]:
        if missing := [name for name in PATTERNS if name not in value]:
            raise ValueError(f"without {', '.join(missing)}")
        return value


#: Memory bandwidth that element-wise kernels reach, of the data sheet's.
STREAMED = 0.5


@cache
def calibrations() -> dict[str, Any]:
    """Return the rows of facts/calibrations.yaml, and `typical`."""
    return dict(read("calibrations"))


def calibration_of(where: Machine, file: Path | None = None) -> Calibration:
    """Return the figures of a machine, or of a file.

    Raises:
        InputError: the file is none of `hpcgeo plan calibrate`, or of another machine.
    """
    if file is not None:
        found = checked(Calibration, own(file, "calibration"), f"calibration {file}")
        if found.machine != where.name:
            raise InputError(
                f"calibration {file} is of {found.machine or 'no machine'}, not of {where.name}"
            )
        return found
    rows = calibrations()
    if row := rows.get(where.name):
        row = {"machine": where.name} | row
        return checked(Calibration, row, f"calibrations.yaml, {where.name}")
    row = dict(rows["typical"])
    share = row.pop("link_share")
    for name, link in (("out_gbs", where.links.out), ("node_gbs", where.links.node)):
        if link is not None:
            row[name] = share * link.value
    return checked(Calibration, row, "calibrations.yaml, typical")
