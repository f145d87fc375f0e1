"""Public weights as data: what model a file holds, and what images it was trained on."""

from dataclasses import field
from functools import cache
from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from hpcgeo.stacks import Size
from hpcgeo.tables import checked, find_open, read


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class PublicWeights:
    """A row of facts/weights.yaml, or an entry point of the group `hpcgeo.weights`.

    Attributes:
        name: of the row.
        model: a row of `hpcgeo list models`.
        sensor, bands: what it reads, in its order.
        unit: of the numbers that images have (`Sensor.unit`).
        mean, std: of each band, in these numbers.
        size: pixels on a side of the images that it is usually given.
        source: where the file is.
        licence: of the file.
    """

    name: str
    model: str
    sensor: str
    bands: tuple[str, ...]
    unit: str
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]
    size: Size
    source: str
    licence: str = field(default="unknown")

    def __post_init__(self) -> None:
        if not len(self.bands) == len(self.mean) == len(self.std):
            raise ValueError(f"{self.name}: bands, mean and std differ in number")


@cache
def public() -> dict[str, PublicWeights]:
    """Return all rows by name."""
    rows = read("weights")
    return {
        name: checked(PublicWeights, {"name": name} | row, "weights.yaml")
        for name, row in rows.items()
    }


def public_weights(name: str) -> PublicWeights:
    """Return a row; an unknown name is an InputError that lists the known ones."""
    row: PublicWeights = find_open(public(), "hpcgeo.weights", name, "public weights")
    return row
