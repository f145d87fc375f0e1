"""A folder of images becomes a data set: find, inspect, plan, write shard files, write the index.

The plan is a function of the sources and the settings alone, and one shard file is one task, so
the bytes are the same whoever does the work, and a build that was stopped continues with the shard
files that are missing.
"""

import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import psutil

from hpcgeo.data.shards.chips import num_windows
from hpcgeo.data.shards.executors import Map
from hpcgeo.data.shards.hdf5 import sha256, write_csv
from hpcgeo.data.shards.index import NAME, File, Index, SampleLayout, ShardFile, load
from hpcgeo.data.shards.moments import BandMoments
from hpcgeo.data.shards.settings import Settings
from hpcgeo.data.shards.shard_file import Failed, Key, Shard, ShardPlan, Span
from hpcgeo.data.shards.shard_file import build as build_shard
from hpcgeo.data.shards.skipped import Skipped
from hpcgeo.data.shards.sources import ListedFile, Listing, SourceFile, find, inspect, named_masks
from hpcgeo.errors import InputError
from hpcgeo.files import write_text
from hpcgeo.log import log, track
from hpcgeo.quoting import grouped
from hpcgeo.sensors import sensor

PLAN = "plan.json"
SKIPPED = "skipped.csv"


@dataclass(frozen=True)
class Outcome:
    """How a build ended.

    Attributes:
        index: None when a shard file could not be written.
        others: files of other endings that were passed over.
    """

    index: Index | None
    others: Counter[str]
    num_failed: int = 0


def build(folder: Path, out: Path, settings: Settings, work: Map) -> Outcome:
    """Build the data set `out` from the images below `folder`.

    One that ends before it wrote a shard file leaves no plan, which would block other options.
    Every source that is skipped and every shard file that fails is one line of the log.

    Raises:
        InputError: no images, none of use, or `out` holds another build.
        OSError: the plan or the index could not be written.
    """
    found = find(folder)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: {error.strerror}: choose another folder") from None
    with _alone(out):
        try:
            return _build(folder, out, settings, work, found)
        except BaseException:
            if not _begun(out):
                (out / PLAN).unlink(missing_ok=True)
                with suppress(OSError):  # it is not empty
                    out.rmdir()
            raise


def _begun(out: Path) -> bool:
    return (out / NAME).exists() or any(out.glob("*.h5"))


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Refuse a second build into a folder while one is under way, where its file system can say."""
    folder = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(folder)
        raise InputError(
            f"{out} is being built by another process: wait for it, or choose another --out"
        ) from None
    except OSError:  # a file system without locks of folders
        pass
    try:
        yield
    finally:
        os.close(folder)


def _build(folder: Path, out: Path, settings: Settings, work: Map, found: Listing) -> Outcome:
    _keep_plan(out / PLAN, folder, settings, found.images)
    if (out / NAME).exists():
        log.info("%s: complete, nothing to do", out)
        return Outcome(load(out), found.others)
    paths = [file.path for file in found.images]
    look = partial(inspect, folder, settings=settings)
    inspected = list(track(work(look, paths, chunksize=8), "inspect", len(paths)))
    sources = [each for each in inspected if isinstance(each, SourceFile)]
    skipped = [each for each in inspected if isinstance(each, Skipped)]
    skipped += [] if settings.bands else named_masks(sources)
    left_out = {each.path for each in skipped}
    sources = [source for source in sources if source.path not in left_out]
    classes = sorted({source.label for source in sources if source.label})
    tasks = plan(folder, out, sources, classes, settings)
    layouts = [name for name, group in tasks.items() for _ in group]
    flat = [task for group in tasks.values() for task in group]
    shards: dict[str, list[Shard]] = {name: [] for name in tasks}
    results = list(track(work(build_shard, flat), "write", len(flat)))
    results = _without_broken(flat, results, work)
    for name, result in zip(layouts, results, strict=True):
        if isinstance(result, Failed):
            log.error("failed %s: %s", out / result.name, result.reason)
        else:
            skipped.extend(result.skipped)
            shards[name].append(result)
    num_failed = sum(isinstance(result, Failed) for result in results)
    rows = dict(sorted((skip.path, skip.reason) for skip in skipped))
    for line in grouped(rows):
        log.warning("skipped %s", line)
    write_csv(out / SKIPPED, ("source", "reason"), rows.items())
    if num_failed:
        return Outcome(None, found.others, num_failed)
    if not any(shard.samples for group in shards.values() for shard in group):
        for task in flat:
            for path in (task.path, task.path.with_name(f"{task.path.name}.sha256")):
                path.unlink(missing_ok=True)
        raise InputError(f"{folder}: no sample in {len(found.images)} files; see {out / SKIPPED}")
    index = _index(out, settings, len(found.images), len(rows), classes, tasks, shards)
    write_text(out / NAME, index.model_dump_json(indent=1) + "\n")
    return Outcome(index, found.others)


def _without_broken(
    plans: Sequence[ShardPlan], results: Sequence[Shard | Failed], work: Map
) -> list[Shard | Failed]:
    """Write anew what holds a part of a source that was broken in another shard file.

    So a source is in the data set whole or not at all, however large the files are.
    """
    done = [result for result in results if isinstance(result, Shard)]
    broken = {skip.path: skip.reason for shard in done for skip in shard.skipped}
    again: dict[int, ShardPlan] = {}
    for number, (each, result) in enumerate(zip(plans, results, strict=True)):
        if isinstance(result, Shard):
            named = {skip.path for skip in result.skipped}
            parts = {span.source.path for span in each.spans} & broken.keys()
            if parts - named:
                again[number] = replace(each, broken={path: broken[path] for path in parts})
    written = dict(zip(again, work(build_shard, list(again.values())), strict=True))
    return [written.get(number, result) for number, result in enumerate(results)]


def plan(
    folder: Path,
    out: Path,
    sources: Sequence[SourceFile],
    classes: Sequence[str],
    settings: Settings,
) -> dict[str, list[ShardPlan]]:
    """Return the shard files to write, by the name of their layout."""
    groups: dict[Key, list[SourceFile]] = {}
    for source in sources:
        groups.setdefault(Key.of(source), []).append(source)
    row = {name: number for number, name in enumerate(classes)}
    tasks: dict[str, list[ShardPlan]] = {}
    for key, group in groups.items():
        name = _layout_name(key, tasks)
        bytes_per_chip = len(key.bands) * settings.chip**2 * np.dtype(key.dtype).itemsize
        if bytes_per_chip > (most := psutil.virtual_memory().total):
            raise InputError(
                f"chip {settings.chip}: one of {len(key.bands)} bands in {key.dtype} takes "
                f"{bytes_per_chip / 1e9:,.0f} GB, and this machine has {most / 1e9:,.0f}: choose a "
                f"smaller --chip"
            )
        room = max(1, (settings.shard_mib << 20) // bytes_per_chip)
        spans = (
            Span(source, row.get(source.label or "", -1), 0, num_windows(source, settings))
            for source in group
        )
        tasks[name] = [
            ShardPlan(folder, out / f"{name}-{number:05d}.h5", key, tuple(portion), settings)
            for number, portion in enumerate(_portions(spans, room))
        ]
    return tasks


def _portions(spans: Iterable[Span], room: int) -> Iterator[list[Span]]:
    """Deal the windows of spans out in order, `room` to a portion."""
    portion: list[Span] = []
    left = room
    for span in spans:
        first = span.first
        while first < span.last:
            last = min(span.last, first + left)
            portion.append(Span(span.source, span.label, first, last))
            left -= last - first
            first = last
            if left == 0:
                yield portion
                portion, left = [], room
    if portion:
        yield portion


def _layout_name(key: Key, taken: Iterable[str]) -> str:
    short = {("red", "green", "blue"): "rgb", ("red", "green", "blue", "nir"): "rgbn"}
    bands = short.get(key.bands, "-".join(key.bands).lower())
    bands = bands if len(bands) <= 16 else f"{len(key.bands)}bands"
    complete = key.sensor and key.bands == tuple(band.name for band in sensor(key.sensor).bands)
    parts = [key.sensor, "" if complete else bands, key.dtype]
    if key.nodata is not None:
        parts.append(f"nodata{key.nodata:g}")
    name = "".join(c if c.isalnum() or c in "-_" else "_" for c in "-".join(filter(None, parts)))
    others = [other for other in taken if other == name or other.startswith(f"{name}-v")]
    return f"{name}-v{len(others) + 1}" if others else name


def _keep_plan(path: Path, folder: Path, settings: Settings, found: Sequence[ListedFile]) -> None:
    """Save the plan of a new build; of one that goes on, check that it is the same.

    One that wrote no shard file is replaced.
    """
    values = {"folder": str(folder.resolve())} | json.loads(json.dumps(asdict(settings)))
    sources = {file.path: [file.size, file.mtime_ns] for file in found}
    if not (path.exists() and _begun(path.parent)):
        text = json.dumps({"settings": values, "sources": sources}, separators=(",", ":"))
        return write_text(path, text + "\n")
    try:
        old = json.loads(path.read_text("utf-8"))
        old["settings"].keys() | old["sources"].keys()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(f"{path}: damaged; remove {path.parent} and build again") from None
    changes = [
        f"{key} was {old['settings'].get(key)}, is {value}"
        for key, value in values.items()
        if old["settings"].get(key) != value
    ]
    for name in sorted(old["sources"].keys() | sources.keys()):
        before, now = old["sources"].get(name), sources.get(name)
        if before != now:
            what = "new" if before is None else "gone" if now is None else "changed"
            changes.append(f"{name} is {what}")
    if changes:
        more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
        raise InputError(
            f"{path.parent}: holds another build: {'; '.join(changes[:3])}{more}; "
            "use another --out, or remove it"
        )
    return None


def _index(
    out: Path,
    settings: Settings,
    num_sources: int,
    num_skipped: int,
    classes: Sequence[str],
    tasks: dict[str, list[ShardPlan]],
    shards: dict[str, list[Shard]],
) -> Index:
    counts = [
        sum(shard.labels.get(row, 0) for group in shards.values() for shard in group)
        for row in range(len(classes))
    ]
    return Index(
        chip=settings.chip,
        compression=settings.compression,
        sources=num_sources,
        skipped=num_skipped,
        classes=dict(zip(classes, counts, strict=True)),
        layouts={name: _layout(tasks[name][0].key, group) for name, group in shards.items()},
        files=tuple(
            File(name=name, bytes=(out / name).stat().st_size, sha256=sha256(out / name))
            for name in (PLAN, SKIPPED)
        ),
    ).signed()


def _layout(key: Key, shards: Sequence[Shard]) -> SampleLayout:
    moments = sum((shard.moments for shard in shards), BandMoments.none(len(key.bands)))
    known = (moments.count > 0) & np.isfinite(moments.std)  # squares of 1e200 are not
    return SampleLayout(
        bands=key.bands,
        dtype=key.dtype,
        sensor=key.sensor,
        nodata=key.nodata,
        scale=key.scale,
        offset=key.offset,
        samples=sum(shard.samples for shard in shards),
        dropped=sum(shard.dropped for shard in shards),
        mean=tuple(float(m) if k else None for m, k in zip(moments.mean, known, strict=True)),
        std=tuple(float(s) if k else None for s, k in zip(moments.std, known, strict=True)),
        shards=tuple(
            ShardFile(
                name=shard.name,
                bytes=shard.bytes,
                sha256=shard.sha256,
                samples=shard.samples,
                start=shard.start,
            )
            for shard in shards
        ),
    )
