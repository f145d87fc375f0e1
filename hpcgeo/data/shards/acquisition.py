"""When and where an image was taken: tags of a raster, EXIF of a photograph, date in a name."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

#: Seconds since 1970 of a sample whose time is not known; numpy reads it as NaT.
NO_TIME = int(np.iinfo(np.int64).min)

#: Tags that hold the time of acquisition, the surest first.
TIME_TAGS = (
    "ACQUISITIONDATETIME",  # IMAGERY domain of GDAL's readers
    "EXIF_DateTimeOriginal",
    "DATATAKE_1_DATATAKE_SENSING_START",
    "PRODUCT_START_TIME",
    "DATE_ACQUIRED",
    "timestamp",
    "datetime",
    "acquired",
)
#: When the file was written: that of a product is its processing, and its name is asked first.
WRITTEN = "TIFFTAG_DATETIME"

_DATE = r"(?P<year>19[5-9]\d|20\d\d)(?P<between>[-:/]?)(?P<month>\d\d)(?P=between)(?P<day>\d\d)"
_STAMP = re.compile(
    rf"{_DATE}(?:[T ]+(?P<hour>\d\d):?(?P<minute>\d\d)(?::?(?P<second>\d\d))?(?:\.\d+)?"
    r"\s*(?P<zone>[+-]\d\d:?\d\d)?)?"
)
# In a name the date stands between delimiters; a clock as in Sentinel's names may follow.
_IN_NAME = re.compile(
    rf"(?<![0-9A-Za-z]){_DATE}(?:T(?P<hour>\d\d)(?P<minute>\d\d)(?P<second>\d\d))?(?![0-9A-Za-z])"
)
Image.MAX_IMAGE_PIXELS = None  # a large scene is no attack; it is read in windows


@dataclass(frozen=True)
class Exif:
    """What a photograph's EXIF block says; unknown places are NaN."""

    orientation: int = 1
    lon: float = math.nan
    lat: float = math.nan
    time: int = NO_TIME


def time_of(tags: Mapping[str, str], path: Path) -> int:
    """Return the time of acquisition in seconds since 1970 UTC, or `NO_TIME`.

    Args:
        tags: of the raster, all domains in one.
        path: its name may carry a date, YYYYMMDD or YYYY-MM-DD between delimiters.
    """
    stamps = [_STAMP.match(tags[tag].strip()) for tag in TIME_TAGS if tag in tags]
    written = _STAMP.match(tags.get(WRITTEN, "").strip())
    return _first_time([*stamps, *_IN_NAME.finditer(path.stem), written])


#: What Pillow opens of the images of a folder: by what they are, not by their names.
FORMATS = ("JPEG", "PNG", "TIFF")


def exif_of(path: Path) -> Exif:
    """Return the EXIF block of an image; where there is none that can be read, an empty one."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            exif = Image.Image.getexif(image)  # that of a PNG would decode the picture
            orientation = exif.get(ExifTags.Base.Orientation, 1)
            camera = exif.get_ifd(ExifTags.IFD.Exif)
            gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    except Exception:  # a block that is broken, in whichever way, does not spoil the picture
        return Exif()
    stamp = str(camera.get(ExifTags.Base.DateTimeOriginal, ""))
    zone = str(camera.get(ExifTags.Base.OffsetTimeOriginal, "")).strip()
    return Exif(
        orientation=orientation if orientation in range(1, 9) else 1,
        lon=_degrees(gps, ExifTags.GPS.GPSLongitude, ExifTags.GPS.GPSLongitudeRef, "W"),
        lat=_degrees(gps, ExifTags.GPS.GPSLatitude, ExifTags.GPS.GPSLatitudeRef, "S"),
        time=_first_time([_STAMP.match(stamp.strip() + zone)]),
    )


def _first_time(stamps: Iterable[re.Match[str] | None]) -> int:
    for stamp in stamps:
        if stamp is None:
            continue
        part = stamp.groupdict()
        names = ("year", "month", "day", "hour", "minute", "second")
        year, month, day, hour, minute, second = (int(part[name] or 0) for name in names)
        try:
            moment = datetime(year, month, day, hour, minute, second, tzinfo=timezone.utc)
        except ValueError:  # the thirteenth month: not a date after all
            continue
        return int((moment - _offset(part.get("zone"))).timestamp())
    return NO_TIME


def _offset(zone: str | None) -> timedelta:
    if not zone:
        return timedelta()
    offset = timedelta(hours=int(zone[1:3]), minutes=int(zone[-2:]))
    return -offset if zone[0] == "-" else offset


def _degrees(gps: Mapping[int, Any], value: int, reference: int, negative: str) -> float:
    try:
        degrees, minutes, seconds = (float(part) for part in gps[value])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return math.nan
    angle = degrees + minutes / 60 + seconds / 3600
    return -angle if str(gps.get(reference, "")).upper().startswith(negative) else angle
