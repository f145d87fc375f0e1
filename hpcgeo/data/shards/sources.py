"""The image files of a folder and what each knows of itself, read from their headers."""

import math
import os
import re
import resource
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Any, NamedTuple
from warnings import catch_warnings, simplefilter

import numpy as np
import numpy.typing as npt
import psutil
import rasterio
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.transform import Affine, from_gcps
from rasterio.windows import Window

from hpcgeo.data.shards.acquisition import Exif, exif_of, time_of
from hpcgeo.data.shards.geography import place
from hpcgeo.data.shards.settings import Settings
from hpcgeo.data.shards.skipped import Skipped, UnusableError
from hpcgeo.errors import InputError
from hpcgeo.sensors import sensor, spelled

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff"})

#: A file comes from anyone: it is read for its own bytes, by what knows no others. VRT, WMS and the
#: like name files and addresses of the reader's machine; a sidecar may do so too.
DRIVERS = {
    **dict.fromkeys([b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"], "GTiff"),
    **{b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG"},
}
GDAL = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "TRUE",
}

#: A description that names no band, but counts it.
_NUMBERED = re.compile(r"(band|layer|channel)?[ _-]?\d+", re.IGNORECASE)
_COLOURS = frozenset({"red", "green", "blue", "nir"})
#: A word of a file or folder of masks and labels, which lie beside the images they belong to.
_MASK = re.compile(
    r"(?<![a-z])((cloud|water|land|building)?masks?|labels?|gts?|truth|annotations?|segmentations?)"
    r"(?![a-z])",
    re.IGNORECASE,
)
#: Values that the middle of a mask or of a raster of labels has at most.
_FEW = 16


@dataclass(frozen=True)
class ListedFile:
    """A file as the folder lists it; the path is relative to the folder."""

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class SourceFile:
    """What a file knows of itself.

    Sizes are of the upright image. `numbers` are the bands to read, counted from 1 as GDAL does.
    `nodata` is None for floats, whose missing pixels are NaN, and where none is stated. A pixel
    stands for scale x value + offset of its band; both are None where they change nothing. `lon`
    and `lat` are those of a photograph; a scene has `crs` (WKT) and `transform` instead.
    """

    path: str
    label: str | None
    height: int
    width: int
    bands: tuple[str, ...]
    numbers: tuple[int, ...]
    dtype: str
    sensor: str | None
    nodata: float | None
    time: int
    lon: float = math.nan
    lat: float = math.nan
    orientation: int = 1
    crs: str | None = None
    transform: tuple[float, ...] | None = None
    palette: bool = False
    scale: tuple[float, ...] | None = None
    offset: tuple[float, ...] | None = None


class Listing(NamedTuple):
    """The images of a folder, and how many files of each other ending were passed over."""

    images: list[ListedFile]
    others: Counter[str]


def find(folder: Path) -> Listing:
    """Return the images below a folder, sorted by path; hidden files and folders are left out.

    Raises:
        InputError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: {'a file: give its' if folder.exists() else 'no such'} folder")
    found, others, root = [], Counter[str](), folder.resolve()
    linked: set[Path] = set()

    def unread(error: OSError) -> None:
        others["folders that cannot be read"] += 1

    for parent, folders, files in os.walk(folder, onerror=unread, followlinks=True):
        folders[:] = [name for name in sorted(folders) if _is_new(Path(parent, name), root, linked)]
        for path in (Path(parent, name) for name in files if not name.startswith(".")):
            ending = path.suffix.lower() or "without ending"
            try:
                status = path.stat()
            except OSError:
                others["dangling links" if path.is_symlink() else "files that cannot be read"] += 1
                continue
            if ending in SUFFIXES and S_ISREG(status.st_mode):
                relative = path.relative_to(folder).as_posix()
                found.append(ListedFile(relative, status.st_size, status.st_mtime_ns))
            else:
                others[ending] += 1
    if not found:
        there = f", but {passed_over(others)}" if others else ""
        raise InputError(f"{folder}: no image in it{there}; known: {', '.join(sorted(SUFFIXES))}")
    return Listing(sorted(found, key=lambda file: file.path), others)


def passed_over(others: Counter[str]) -> str:
    """Return how many files of each ending there are, in words: ``12 .webp, 2 dangling links``."""
    return ", ".join(f"{count:,} {ending}" for ending, count in others.most_common())


def _is_new(path: Path, root: Path, linked: set[Path]) -> bool:
    """Say whether to search a folder: not a hidden one, nor a link to what is searched anyway."""
    if path.name.startswith("."):
        return False
    if path.is_symlink():
        real = path.resolve()
        if real in linked or real.is_relative_to(root) or root.is_relative_to(real):
            return False
        linked.add(real)
    return True


@contextmanager
def opened(path: Path) -> Iterator[DatasetReader]:
    """Open a raster; what GDAL cannot read is an UnusableError."""
    with catch_warnings(), rasterio.Env(**GDAL):
        simplefilter("ignore", UserWarning)  # rasterio's and Pillow's: no place, odd tags
        try:
            with rasterio.open(path, driver=_driver(path)) as raster:
                yield raster
        except (RasterioError, OSError, ValueError) as error:
            raise UnusableError(f"broken: {_one_line(error, path)}") from None
        except MemoryError:
            raise UnusableError("too large for the memory of this machine") from None


def _driver(path: Path) -> str:
    """Return the driver of a file by its first bytes, whatever it is called."""
    with path.open("rb") as file:
        first = file.read(4)
    for begins, driver in DRIVERS.items():
        if first.startswith(begins):
            return driver
    raise UnusableError(f"broken: neither TIFF, JPEG nor PNG: it begins with {first!r}")


def inspect(folder: Path, path: str, settings: Settings) -> SourceFile | Skipped:
    """Return what a source knows of itself, or why it must be skipped."""
    try:
        with opened(folder / path) as raster:
            return _inspect(folder, path, raster, settings)
    except UnusableError as reason:
        return Skipped(path, str(reason))


def _inspect(folder: Path, path: str, raster: DatasetReader, settings: Settings) -> SourceFile:
    if pages := raster.subdatasets:
        raise UnusableError(f"it holds {len(pages)} images: make a file of each (tiffsplit)")
    dtype = str(raster.dtypes[0])
    if np.dtype(dtype).kind not in "iuf":
        raise UnusableError(f"{dtype} pixels: only integers and floats can be stored")
    if raster.driver == "JPEG":
        _refuse_beyond_memory(raster)
    crs, transform = _georeference(raster)
    exif = Exif() if crs else exif_of(folder / path)
    palette = not crs and raster.colorinterp[0].name == "palette" and settings.bands is None
    if palette:
        _refuse_few_values(raster)
    bands, numbers = (("red", "green", "blue"), (1,)) if palette else _bands(raster, settings)
    nodata = raster.nodata if raster.nodata is not None else settings.nodata
    if np.dtype(dtype).kind == "f":
        nodata = None
    elif nodata is not None and not _holds(dtype, nodata):
        raise UnusableError(
            f"nodata {nodata:g} is no {dtype}; pass a TIFF whose nodata fits its pixels"
        )
    scale, offset = (None, None) if palette else _units(raster, numbers)
    height, width = raster.shape
    time = exif.time
    if time < 0:
        tags = raster.tags(ns="IMAGERY") | raster.tags()
        time = time_of(tags, Path(path))
    parts = Path(path).parts
    return SourceFile(
        path=path,
        label=parts[0] if len(parts) == 2 else None,
        height=width if exif.orientation > 4 else height,
        width=height if exif.orientation > 4 else width,
        bands=bands,
        numbers=numbers,
        dtype=dtype,
        sensor=settings.sensor,
        nodata=nodata,
        scale=scale,
        offset=offset,
        time=time,
        lon=exif.lon,
        lat=exif.lat,
        orientation=exif.orientation,
        crs=crs,
        transform=transform,
        palette=palette,
    )


def _units(
    raster: DatasetReader, numbers: Sequence[int]
) -> tuple[tuple[float, ...], tuple[float, ...]] | tuple[None, None]:
    """Return scale and offset of bands, None where they change nothing."""
    scale, offset = (
        tuple(float(each[n - 1]) for n in numbers) for each in (raster.scales, raster.offsets)
    )
    if set(scale) == {1.0} and set(offset) == {0.0}:
        return None, None
    if not np.isfinite((*scale, *offset)).all() or 0.0 in scale:
        raise UnusableError(f"scale {scale}, offset {offset}: no units; correct them (gdal_edit)")
    return scale, offset


def _refuse_beyond_memory(raster: DatasetReader) -> None:
    """Refuse a JPEG that cannot be decoded whole, before every shard file tries."""
    needed = 2 * raster.width * raster.height * raster.count  # decoded, and as an array
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    there = psutil.virtual_memory().available
    there = there if most == resource.RLIM_INFINITY else min(there, most)
    if needed > there:
        raise UnusableError(
            f"a JPEG is decoded whole, which takes {needed / 1e9:.1f} GB of memory, and "
            f"{there / 1e9:.1f} GB are there: convert it to a tiled TIFF (gdal_translate -of COG)"
        )


def _georeference(raster: DatasetReader) -> tuple[str | None, tuple[float, ...] | None]:
    crs, affine = raster.crs, raster.transform
    points, points_crs = raster.gcps
    if crs is None and points and points_crs:
        crs, affine = points_crs, from_gcps(points)
    if crs is None:
        if affine != Affine.identity():
            raise UnusableError(
                "scene without CRS: it has a geotransform; assign one (gdal_edit -a_srs)"
            )
        return None, None
    if affine == Affine.identity():
        raise UnusableError("scene without geotransform: it has a CRS but no pixel sizes")
    wkt = crs.to_wkt()
    centre = np.array([raster.height / 2]), np.array([raster.width / 2])
    if not np.isfinite(place(wkt, affine[:6], *centre)).all():
        raise UnusableError("its CRS gives the centre no longitude and latitude")
    return wkt, tuple(affine)[:6]


def _bands(raster: DatasetReader, settings: Settings) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return names and numbers of the bands of pixels; alpha is not one of them unless named."""
    colours = [colour.name for colour in raster.colorinterp]
    numbers = tuple(n for n, colour in enumerate(colours, 1) if colour != "alpha")
    described = tuple(raster.descriptions[n - 1] or "" for n in numbers)
    wanted = settings.bands
    if wanted is None and settings.sensor is not None:
        names = tuple(band.name for band in sensor(settings.sensor).bands)
        wanted = _of_sensor(described, names, settings.sensor)
    if wanted is not None:
        if len(wanted) == raster.count:
            return wanted, tuple(range(1, raster.count + 1))
        if len(wanted) == len(numbers):
            return wanted, numbers
        raise UnusableError(
            f"number of bands: it has {raster.count}, {len(wanted)} are named: {','.join(wanted)}"
        )
    if all(described):
        return described, numbers
    named = tuple(colours[n - 1] for n in numbers)
    if set(named) <= _COLOURS and len(set(named)) == len(named) and _alpha_is_mask(raster):
        return named, numbers
    if named == ("gray",) and (raster.driver != "GTiff" or raster.dtypes[0] == "uint8"):
        _refuse_few_values(raster)
        return ("grey",), numbers
    count = f"{raster.count} band{'s' if raster.count > 1 else ''}"
    raise UnusableError(
        f"band order unknown: {count} without descriptions; pass --sensor NAME or --bands a,b,.."
    )


def _of_sensor(described: Sequence[str], names: Sequence[str], of: str) -> tuple[str, ...]:
    """Return the bands of a sensor that descriptions name; where they say nothing, all in order."""
    if not all(described) or any(_NUMBERED.fullmatch(name) for name in described):
        return tuple(names)
    found = [spelled(name, names) for name in described]
    if None in found or len(set(found)) < len(found):
        raise UnusableError(
            f"its bands are called {','.join(described)}, those of {of} {','.join(names)}: say "
            f"with --bands which they are"
        )
    return tuple(name for name in found if name)


def _alpha_is_mask(raster: DatasetReader) -> bool:
    """Say whether the alpha band of a scene is one: writers call any fourth band of bytes alpha."""
    names = [colour.name for colour in raster.colorinterp]
    if "alpha" not in names or raster.crs is None:
        return True
    values = _middle(raster, names.index("alpha") + 1)
    return set(values.tolist()) <= {0, np.iinfo(values.dtype.name).max}


def _middle(raster: DatasetReader, number: int) -> npt.NDArray[Any]:
    """Return the values that a band has in its middle, each once."""
    size = 256
    window = Window((raster.width - size) // 2, (raster.height - size) // 2, size, size)
    inside = window.intersection(Window(0, 0, raster.width, raster.height))
    return np.unique(raster.read(number, window=inside))


def _refuse_few_values(raster: DatasetReader) -> None:
    """Refuse a grey image that seems to be a mask or a raster of labels."""
    if raster.driver != "JPEG" and 1 < len(_middle(raster, 1)) <= _FEW:
        raise UnusableError(
            f"a mask or labels: at most {_FEW} values in its middle; if it is an image, name its "
            f"bands (--bands)"
        )


def named_masks(sources: Sequence[SourceFile]) -> list[Skipped]:
    """Return the images whose names say that they are masks or labels of others.

    None are where all are called so, or where they are JPEG, which keeps no labels.
    """
    named = [
        source.path
        for source in sources
        if _MASK.search(source.path) and not source.path.lower().endswith((".jpg", ".jpeg"))
    ]
    if len(named) == len(sources):
        return []
    reason = "a mask or labels, by its name; if it is an image, name its bands (--bands)"
    return [Skipped(path, reason) for path in named]


def _holds(dtype: str, value: float) -> bool:
    limits = np.iinfo(dtype)
    return value == int(value) and limits.min <= value <= limits.max


def _one_line(error: Exception, path: Path | None = None) -> str:
    text = str(error.__cause__ or error).strip().splitlines()
    line = text[0] if text else type(error).__name__
    return line if path is None else re.sub(rf"'?\S*{re.escape(path.name)}'?:? *", "", line)


def masked(raster: DatasetReader, numbers: Sequence[int]) -> bool:
    """Say whether bands come with a mask: nodata, alpha that is not a band itself, or a mask."""
    flags = [raster.mask_flag_enums[n - 1] for n in numbers]
    own_alpha = len(numbers) == raster.count
    return any(
        MaskFlags.all_valid not in each and not (own_alpha and MaskFlags.alpha in each)
        for each in flags
    )
