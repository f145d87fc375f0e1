"""One image of a public data set, whole, as its sensor has it."""

import math
from pathlib import Path

from hpcgeo.data.readers.benchmarks.facts import PHOTOGRAPHS, Benchmark
from hpcgeo.data.readers.collection import ANY_TIME, Frame, fit, read_image, scaled_gsd
from hpcgeo.data.readers.windows import whole
from hpcgeo.data.sample import UNKNOWN, Float32, Observation


def observed(row: Benchmark, path: Path, frame: Frame) -> tuple[Observation, tuple[float, float]]:
    """Return what an image shows at the size of the frame, and its place.

    Raises:
        InputError: it cannot be read, has other bands, or does not fit the frame.
    """
    values, where, gsd_m = _read(row, path)
    gsd_m = gsd_m if math.isfinite(gsd_m) else row.gsd_m
    seen = Observation(
        row.channels,
        fit(values, frame, path)[None],  # (1, L, H, W)
        ANY_TIME,
        gsd_m=scaled_gsd(gsd_m, values.shape[1], frame),
        patch=frame.patch,
    )
    return seen, where


def _read(row: Benchmark, path: Path) -> tuple[Float32, tuple[float, float], float]:
    if row.sensor == PHOTOGRAPHS:
        return read_image(path, "RGB"), UNKNOWN, math.nan
    return whole(path, len(row.bands))
