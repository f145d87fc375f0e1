"""What `hpcgeo data build` may be told."""

from dataclasses import dataclass
from typing import Literal

from hpcgeo.errors import InputError
from hpcgeo.sensors import sensor

Compression = Literal["none", "gzip", "lzf"]


@dataclass(frozen=True)
class Settings:
    """How sources become chips and chips become shard files.

    Args:
        chip: height and width of a chip in pixels.
        overlap: pixels that neighbouring chips share.
        min_valid: chips with a smaller fraction of valid pixels are dropped as mostly empty.
        shard_mib: MiB of pixels a shard file holds at most, and a worker in memory.
        compression: of the pixels; none reads fastest.
        bands: names of the bands of every source, for files that do not name them.
        sensor: a row of `hpcgeo list sensors`; gives the bands where `bands` does not.
        nodata: value that marks missing pixels, for files that state none.

    Raises:
        InputError: a value out of range, or bands that the sensor does not have.
    """

    chip: int = 256
    overlap: int = 0
    min_valid: float = 0.5
    shard_mib: int = 512
    compression: Compression = "none"
    bands: tuple[str, ...] | None = None
    sensor: str | None = None
    nodata: float | None = None

    def __post_init__(self) -> None:
        if self.chip < 1:
            raise InputError(f"chip {self.chip}: a chip needs at least one pixel, e.g. 256")
        if not 0 <= self.overlap < self.chip:
            raise InputError(
                f"overlap {self.overlap}: must be at least 0 and below chip {self.chip}"
            )
        if not 0 <= self.min_valid <= 1:
            raise InputError(f"min-valid {self.min_valid}: a fraction between 0 and 1, e.g. 0.5")
        if self.shard_mib < 1:
            raise InputError(f"shard-mib {self.shard_mib}: at least 1; 512 suits a parallel system")
        if self.bands is not None and not all(self.bands):
            raise InputError(f"bands {','.join(self.bands)!r}: names, separated by commas")
        if self.sensor is not None:
            known = [band.name for band in sensor(self.sensor).bands]
            for band in self.bands or ():
                if band not in known:
                    raise InputError(f"band {band!r}: {self.sensor} has {', '.join(known)}")

    @property
    def stride(self) -> int:
        """Pixels from one chip to the next."""
        return self.chip - self.overlap
