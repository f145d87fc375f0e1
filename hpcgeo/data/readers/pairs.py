"""Two dates of one place in GeoTIFF files of one name under A/ and B/, the change under label/."""

from functools import partial
from pathlib import Path

import numpy as np

from hpcgeo.data.readers.collection import (
    Collection,
    Frame,
    Int64,
    fit,
    fit_mask,
    one_of_splits,
    read_from,
    read_table,
    reading,
    scaled_gsd,
    single_target,
    year,
)
from hpcgeo.data.readers.windows import whole
from hpcgeo.data.sample import Channel, Observation, Sample
from hpcgeo.errors import InputError
from hpcgeo.kinds.target import Target

#: SWIR1, NIR, red, green, under the name of Landsat-7 whichever satellite it was.
BANDS = tuple(Channel("landsat7", band) for band in ("B5", "B4", "B3", "B2"))


def collect(path: Path, target: str | None, frame: Frame) -> Collection:
    """Return the pairs of a folder: `split.csv` has name, year_a, year_b and split of each.

    Every file has the four bands SWIR1, near infrared, red and green of Landsat; a date is known
    to the year. The part of a name behind its last underscore is the tile: what shares ground.

    Raises:
        InputError: another target than the one there is, or the table cannot be read.
    """
    single_target(target, "change")
    table = path / "split.csv"
    rows = read_table(table, ("name", "year_a", "year_b", "split"))
    with reading(table):
        years = np.array([[int(row["year_a"]), int(row["year_b"])] for row in rows])
    names = [row["name"] for row in rows]
    files = [path / part / f"{name}.tif" for name in names for part in ("A", "B", "label")]
    return Collection(
        target=Target("change", ("unchanged", "changed")),
        channels=BANDS,
        splits=one_of_splits([row["split"] for row in rows], table),
        groups=np.array([name.rsplit("_", 1)[-1] for name in names]),
        labels=np.empty(0),
        **read_from(files, [table]),
        load=partial(_load, files, years, frame),
    )


def _load(files: list[Path], years: Int64, frame: Frame, index: int) -> Sample:
    before, after, label = files[3 * index : 3 * index + 3]
    first, where, gsd_m = whole(before, len(BANDS))
    second, _, _ = whole(after, len(BANDS))
    changed, _, _ = whole(label, 1)
    for path, pixels in ((after, second), (label, changed)):
        if pixels.shape[1:] != first.shape[1:]:
            raise InputError(f"{path}: {pixels.shape[1:]} pixels, {first.shape[1:]} in {before}")
    seen = Observation(
        BANDS,
        fit(np.stack([first, second]), frame, before),  # (2, 4, H, W)
        np.array([year(int(number)) for number in years[index]]),
        gsd_m=scaled_gsd(gsd_m, first.shape[1], frame),
        patch=frame.patch,
    )
    return Sample((seen,), fit_mask((changed[0] > 0).astype(np.int64), frame, label), place=where)
