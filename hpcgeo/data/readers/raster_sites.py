"""Which rasters lie over each other: paths with named parts, in a few lines of YAML."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field, PositiveInt, field_validator, model_validator
from rasterio.crs import CRS

from hpcgeo.data.readers.collection import Frame, days, reading, refuse_outside
from hpcgeo.data.readers.windows import Header, header
from hpcgeo.data.sample import Channel
from hpcgeo.errors import InputError
from hpcgeo.log import log
from hpcgeo.options import OptionGroup
from hpcgeo.sensors import sensors, spelled
from hpcgeo.tables import brief, checked, own

#: Of a {date}: a year, a month or a day.
DATE = r"\d{4}(?:[-_]?\d\d){0,2}"

Parts = tuple[tuple[str, str], ...]


def _relative(files: str) -> str:
    if Path(files).is_absolute():
        raise ValueError("give it from the folder of this file; a link there leads elsewhere")
    return files


Files = Annotated[str, AfterValidator(_relative)]


class Clouds(OptionGroup):
    """A raster beside each date, whose `values` say where nothing of the ground is seen."""

    files: Files
    values: list[int]


class RasterFiles(OptionGroup):
    """Rasters of one sensor.

    Attributes:
        files: their paths, from the folder of the YAML file.
        sensor: a row of `hpcgeo.sensors`, or of a file of your own.
        bands: of the files in their order, null for one that is left out; by default every band
            whose description names one of the sensor ("B02", "S2-L2A-B02", "VV_dB").
        date: of files without {date}; by default unknown.
        days: how many a composite covers from its date on; by default the day, month or year.
        patch: pixels on a side of a token; by default that of the task.
        orbit: of SAR images.
        clouds: what is missing beside nodata.
    """

    files: Files
    sensor: str
    bands: list[str | None] | None = Field(None, min_length=1)
    date: str | None = Field(None, pattern=f"^{DATE}$")
    days: PositiveInt | None = None
    patch: PositiveInt | None = None
    orbit: Literal["ascending", "descending"] | None = None
    clouds: Clouds | None = None

    @field_validator("date", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        return value if value is None else str(value)  # YAML makes dates and numbers of them


class Labels(OptionGroup):
    """What pixels are labelled with: classes, or numbers.

    Attributes:
        files: their paths, from the folder of the YAML file.
        band: of classes.
        classes: by the value of a pixel, several of which may be one; others are not labelled.
        numbers: the name of each band of numbers, in their order; null for one that is left out.
    """

    files: Files
    band: PositiveInt = 1
    classes: dict[int, str] = Field({})
    numbers: list[str | None] = Field([])

    @model_validator(mode="after")
    def _one_of_both(self) -> "Labels":
        if bool(self.classes) == any(self.numbers):
            raise ValueError("give classes, or numbers: one of the two")
        if self.numbers and self.band != 1:
            raise ValueError("band is that of classes: numbers names every band")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The classes, or the numbers."""
        return tuple(dict.fromkeys(self.classes.values())) or tuple(filter(None, self.numbers))


class SamplesFile(OptionGroup):
    """The whole file."""

    rasters: list[RasterFiles] = Field(min_length=1)
    labels: dict[str, Labels] = Field({})


@dataclass(frozen=True)
class Dated:
    """A raster with its time (2,), the number of each band in it, and its clouds."""

    header: Header
    time: tuple[float, float]
    numbers: dict[str, int]
    clouds: Header | None = None


@dataclass(frozen=True)
class Layer:
    """What one sensor saw of a place: its bands, and rasters in the order of time."""

    entry: RasterFiles
    channels: tuple[Channel, ...]
    dates: tuple[Dated, ...]


@dataclass(frozen=True)
class Site:
    """One place: what there is of it, and the raster that sets its grid."""

    parts: Parts
    layers: tuple[Layer, ...]
    labels: Header | None

    @property
    def finest(self) -> Header:
        """The raster with the smallest pixels."""
        first = [layer.dates[0].header for layer in self.layers]
        return min(first, key=lambda raster: abs(raster.transform.determinant))

    @property
    def rasters(self) -> Iterator[Header]:
        """Everything that is read."""
        for layer in self.layers:
            for dated in layer.dates:
                yield dated.header
                if dated.clouds:
                    yield dated.clouds
        if self.labels:
            yield self.labels


def parsed(path: Path) -> SamplesFile:
    """Return what a YAML file says; an InputError names what is not of its form."""
    samples = checked(SamplesFile, own(path, "samples file"), f"samples file {path}")
    for entry in samples.rasters:
        if entry.patch:
            Frame(entry.patch)  # a power of two
    return samples


def sites(path: Path, samples: SamplesFile, labels: Labels | None) -> list[Site]:
    """Return the places of a collection, sorted by the named parts of their paths.

    Args:
        path: of the YAML file.
        samples: what it says.
        labels: which of its labels, if any.

    Raises:
        InputError: a path fits no file, or rasters do not fit together.
    """
    patterns = [entry.files for entry in samples.rasters]
    named = max((_names(pattern) for pattern in patterns), key=len)
    for pattern in (*patterns, *([labels.files] if labels else [])):
        if not _names(pattern) <= named:
            raise InputError(
                f"{path}: {pattern} names {', '.join(sorted(_names(pattern) - named))}: one of the "
                f"rasters must name every part that tells places apart"
            )
    found = [_matches(path.parent, pattern) for pattern in patterns]
    keys = sorted({_place(parts) for files in found for parts, _ in files})
    keys = [key for key in keys if {name for name, _ in key} == named]
    layers = [
        _layers(path.parent, entry, files, keys)
        for entry, files in zip(samples.rasters, found, strict=True)
    ]
    masks = _matches(path.parent, labels.files) if labels else []
    places = []
    for number, key in enumerate(keys):
        here = tuple(layer for each in layers if (layer := each[number]))
        mask = header(_only(masks, key, labels.files)) if labels else None
        places.append(Site(key, here, mask))
        _agree(places[-1])
    return places


def _names(pattern: str) -> set[str]:
    """Return what tells places apart in a pattern."""
    return set(re.findall(r"\{(\w+)\}", pattern)) - {"date"}


def _matches(folder: Path, pattern: str) -> list[tuple[dict[str, str], Path]]:
    """Return the files of a pattern with their named parts; an InputError where there is none."""
    pieces = re.split(r"\{(\w+)\}", pattern)
    known: set[str] = set()
    regex = ""
    for number, piece in enumerate(pieces):
        if number % 2 == 0:
            regex += re.escape(piece).replace(r"\*", "[^/]*")
        elif piece in known:
            regex += f"(?P={piece})"
        else:
            known.add(piece)
            regex += f"(?P<{piece}>{DATE if piece == 'date' else '[^/]+?'})"
    refuse_outside(pattern, str(folder))
    with reading(folder / pattern):
        paths = sorted(folder.glob("*".join(pieces[::2]).replace("[", "[[]")))
        names = [path.relative_to(folder).as_posix() for path in paths]
    hits = zip(paths, (re.fullmatch(regex, name) for name in names), strict=True)
    found = [(hit.groupdict(), path) for path, hit in hits if hit]
    if not found:
        raise InputError(f"{folder / pattern}: no such files")
    return found


def _place(parts: Mapping[str, str]) -> Parts:
    """Return the named parts that tell a place, sorted."""
    return tuple(sorted((name, value) for name, value in parts.items() if name != "date"))


def _only(files: Sequence[tuple[dict[str, str], Path]], key: Parts, pattern: str) -> Path:
    fitting = [path for parts, path in files if set(_place(parts)) <= set(key)]
    if len(fitting) != 1:
        name = ", ".join(f"{part} {value}" for part, value in key)
        raise InputError(f"{pattern}: {len(fitting)} files for one place ({name}): exactly one")
    return fitting[0]


def _layers(
    folder: Path,
    entry: RasterFiles,
    files: Sequence[tuple[dict[str, str], Path]],
    sites: Sequence[Parts],
) -> list[Layer | None]:
    """Return what an entry has of each place."""
    clouds: dict[tuple[tuple[str, str], ...], Path] = {}
    if entry.clouds:
        clouds = {
            tuple(sorted(parts.items())): path
            for parts, path in _matches(folder, entry.clouds.files)
        }
    dated: list[tuple[Parts, Dated]] = []
    for parts, path in files:
        raster = header(path)
        mask = clouds.get(tuple(sorted(parts.items())))
        if entry.clouds and mask is None:
            raise InputError(f"{path}: no {entry.clouds.files} of the same place and date")
        when = time_of_date(parts.get("date", entry.date), entry.days, path)
        numbers = _numbers(entry, raster)
        dated.append((_place(parts), Dated(raster, when, numbers, header(mask) if mask else None)))
    there = dict.fromkeys(name for _, one in dated for name in one.numbers)
    known = there if entry.bands else [band.name for band in sensors()[entry.sensor].bands]
    channels = tuple(Channel(entry.sensor, name) for name in known if name in there)
    layers: list[Layer | None] = []
    for key in sites:
        here = [one for parts, one in dated if set(parts) <= set(key)]
        here.sort(key=lambda one: (one.time[0], one.header.path))
        if len(here) > 1 and "{date}" not in entry.files:
            raise InputError(
                f"{here[1].header.path}: of one place with {here[0].header.path}, "
                "but no {date} in files tells them apart"
            )
        layers.append(Layer(entry, channels, tuple(here)) if here else None)
    return layers


def _numbers(entry: RasterFiles, raster: Header) -> dict[str, int]:
    """Return the number of each band of a sensor in a raster, from 1."""
    if entry.bands is not None:
        if len(entry.bands) != len(raster.bands):
            raise InputError(
                f"{raster.path}: {len(raster.bands)} bands, {len(entry.bands)} are named"
            )
        found = [(name, number) for number, name in enumerate(entry.bands, 1) if name]
    else:
        known = sensors().get(entry.sensor)
        if known is None:
            raise InputError(f"{entry.files}: {entry.sensor} is a sensor of your own: name bands")
        names = [band.name for band in known.bands]
        found, other = [], []
        for number, text in enumerate(raster.bands, 1):
            whole = spelled(text, names)
            words = re.split(r"[^0-9A-Za-z]+", text)
            named = {whole} if whole else {spelled(word, names) for word in words} - {None}
            found += [(name, number) for name in named if name]
            if not named:
                other.append(text or str(number))
        if other:
            left_out(entry.files, entry.sensor, tuple(other))
    doubled = [name for name, count in Counter(name for name, _ in found).items() if count > 1]
    if not found or doubled:
        said = f"{', '.join(sorted(doubled))} twice" if doubled else f"none of {entry.sensor}"
        raise InputError(
            f"{raster.path}: its bands ({brief(', '.join(raster.bands))}) name {said}: give bands"
        )
    return dict(found)


@cache
def left_out(files: str, sensor: str, bands: tuple[str, ...]) -> None:
    """Say once which bands of rasters are not read."""
    log.warning(
        "%s: its bands %s are none of %s and are left out; bands: in the file says which are which",
        *(files, brief(", ".join(bands)), sensor),
    )


def time_of_date(text: str | None, length: int | None, path: Path) -> tuple[float, float]:
    """Return centre and half-width of a date, in days since 2000."""
    if text is None:
        return 0.0, np.inf
    digits = re.sub(r"\D", "", text)
    year, month, day = int(digits[:4]), int(digits[4:6] or 1), int(digits[6:8] or 1)
    with reading(path):
        start = date(year, month, day)
        if length:
            end = start + timedelta(length)
        elif len(digits) == 8:
            end = start + timedelta(1)
        elif len(digits) == 6:
            end = date(year + month // 12, month % 12 + 1, 1)
        else:
            end = date(year + 1, 1, 1)
    return days(start, end)


def _agree(site: Site) -> None:
    """Refuse rasters of one place in different CRS."""
    first = site.finest
    for other in site.rasters:
        if other.crs != first.crs and CRS.from_wkt(other.crs) != CRS.from_wkt(first.crs):
            here, there = (CRS.from_wkt(each.crs).to_string()[:40] for each in (other, first))
            raise InputError(
                f"{other.path} is in {here}, {first.path} in {there}: bring them to one "
                f"(gdalwarp -t_srs)"
            )
