"""Which scenes are meant: files, folders, patterns, dates of one place, a samples.yaml."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from hpcgeo.data.readers.collection import checksum
from hpcgeo.data.readers.raster_sites import Site, parsed, sites
from hpcgeo.data.readers.rasters import NAME
from hpcgeo.data.shards.sources import find
from hpcgeo.errors import InputError

#: What parts the dates of one place: BEFORE,AFTER.
DATES = ","


@dataclass(frozen=True)
class NamedScene:
    """A scene before it is opened.

    Attributes:
        name: of its map below the folder of maps, without ending.
        files: one for each date, where it is of one sensor.
        site: rasters of several sensors and dates, as a samples.yaml has them.
    """

    name: str
    files: tuple[Path, ...] = ()
    site: Site | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file that is read."""
        if self.site is None:
            return self.files
        return tuple(dict.fromkeys(raster.path for raster in self.site.rasters))

    def fingerprint(self) -> str:
        """Return a checksum of names, sizes and times of the files, and of what is said of them; an
        InputError: one is gone."""
        times = "".join(f" {path.stat().st_mtime_ns}" for path in self.paths if path.exists())
        return f"{checksum(self.paths)}{crc32(f'{times} {self.site!r}'.encode()):08x}"


def scenes(named: Sequence[str], out: Path) -> list[NamedScene]:
    """Return the scenes that a command line names, in its order.

    Args:
        named: files, folders, patterns with ``*``, dates of one place parted by commas (files, or
            folders with files of the same names), a samples.yaml.
        out: the folder of maps, which are no scenes.

    Raises:
        InputError: there is no such file, or two maps would have one name.
    """
    found = [scene for text in named for scene in _named(text, out.resolve())]
    counts = Counter(scene.name for scene in found)
    for name, count in counts.items():
        if count > 1:
            same = [str(scene.paths[0]) for scene in found if scene.name == name]
            raise InputError(
                f"{' and '.join(same[:2])} would both be the map {name}: give the folder above "
                f"both, or another --out for each"
            )
    return found


def _named(text: str, out: Path) -> Iterator[NamedScene]:
    path = Path(text)
    if path.is_dir():
        yield from _places(path / NAME) if (path / NAME).exists() else _folder(path, out)
    elif path.suffix in (".yaml", ".yml"):
        yield from _places(path)
    elif path.exists():
        yield NamedScene(path.stem, (path,))
    elif DATES in text:
        yield from _dates([Path(part) for part in text.split(DATES)], text, out)
    elif "*" in text or "?" in text:
        hits = sorted(Path(path.anchor or ".").glob(str(path.relative_to(path.anchor))))
        files = [hit for hit in hits if hit.is_file() and not hit.resolve().is_relative_to(out)]
        if not files:
            raise InputError(f"{text}: no file fits")
        yield from (NamedScene(file.stem, (file,)) for file in files)
    else:
        raise InputError(f"{text}: no such file or folder")


def _folder(folder: Path, out: Path) -> Iterator[NamedScene]:
    for file in find(folder).images:
        path = folder / file.path
        if not path.resolve().is_relative_to(out):
            yield NamedScene(Path(file.path).with_suffix("").as_posix(), (path,))


def _dates(paths: Sequence[Path], text: str, out: Path) -> Iterator[NamedScene]:
    for path in paths:
        if not path.exists():
            raise InputError(f"{text}: {path}: no such file or folder")
    if not any(path.is_dir() for path in paths):
        yield NamedScene(paths[-1].stem, tuple(paths))
        return
    if not all(path.is_dir() for path in paths):
        raise InputError(f"{text}: files and folders: give a file, or a folder, for each date")
    by_date = [{scene.name: scene.files[0] for scene in _folder(path, out)} for path in paths]
    for name in sorted(set().union(*by_date)):
        for path, there in zip(paths, by_date, strict=True):
            if name not in there:
                raise InputError(f"{path}: no image {name}, as in the other folders of {text}")
        yield NamedScene(name, tuple(there[name] for there in by_date))


def _places(path: Path) -> Iterator[NamedScene]:
    for site in sites(path, parsed(path), None):
        name = "_".join(value for _, value in site.parts) or path.parent.resolve().name
        yield NamedScene(name.replace("/", "_"), site=site)
