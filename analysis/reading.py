"""Records, curves of collectives and scores come in here; what cannot be true is refused."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel

from hpcgeo import scores
from hpcgeo.errors import InputError
from hpcgeo.log import log
from hpcgeo.measured import told
from hpcgeo.records import LinksRecord, Record, read_links, read_on

#: No number of a study is larger; axes cannot show what is near the end of floats.
LARGEST = 1e30

_NAMES = ("machine", "device", "model", "objective", "strategy", "dtype", "data", "recompute")


class Loaded(NamedTuple):
    """What files and folders hold.

    Attributes:
        copies: records that were read twice, and left out.
        newer: fields of records of a newer minor version that are not known, and how many records
            have each.
        scores: in the order of the files, each line once.
        score_copies: scores that were read twice, and left out.
    """

    records: list[Record]
    links: list[LinksRecord]
    copies: int
    newer: Counter[str]
    scores: list[scores.Score]
    score_copies: int


def load(paths: Iterable[Path]) -> Loaded:
    """Return the records, the curves and the scores of files and folders.

    Raises:
        InputError: nothing there, no record in it, or a line that is not a sound record or score.
    """
    paths = list(paths)
    found: dict[str, Record] = {}
    curves: list[LinksRecord] = []
    probed: list[scores.Score] = []
    unknown: set[str] = set()
    read_in = 0
    newer: Counter[str] = Counter()
    for path in paths:
        links, files = _of_links(path), scores.files_of(path)
        if not (files or links or _of_records(path)):
            _refuse_evaluations(path)
        for file in files:
            for score in scores.read(file, unknown.add):
                _check_names(score, ("task", "reader", "metric", "protocol"), file)
                probed.append(score)
        for curve in read_links([path]) if links else []:
            _check_links(curve, path)
            curves.append(curve)
        records = (
            []
            if (links or files) and not _of_records(path)
            else read_on([path], lambda name: newer.update([name]))
        )
        for record in records:
            _check(record, path)
            found.setdefault(record.model_dump_json(), record)
        read_in += len(records)
    if not found and not curves and not probed:
        names = ", ".join(str(path) for path in paths) or "no files given"
        raise InputError(
            f"no records in {names}; `hpcgeo profile` writes them, and `hpcgeo probe --on` scores"
        )
    unique = list({curve.model_dump_json(): curve for curve in curves}.values())
    if unknown:
        log.warning("fields of newer scores, left out: %s", ", ".join(sorted(unknown)))
    once = list({score.model_dump_json(): score for score in probed}.values())
    return Loaded(
        *(list(found.values()), unique, read_in - len(found), newer),
        *(once, len(probed) - len(once)),
    )


def _refuse_evaluations(path: Path) -> None:
    """Refuse what has the name of scores, and holds none: runs keep their evaluations so."""
    named = any(path.rglob("scores*.jsonl")) if path.is_dir() else path.name.startswith("scores")
    if path.exists() and named:
        raise InputError(
            f"{path}: no score in it that `hpcgeo probe ENCODER --on READER:PATH --out` wrote, and "
            f"no record; what a run keeps in scores.jsonl are its evaluations"
        )


def _of_links(path: Path) -> bool:
    """Whether a file, or something below a folder, holds curves of collectives."""
    if path.is_dir():
        return any(path.rglob("links*.jsonl"))
    return path.name.startswith("links")


def _of_records(path: Path) -> bool:
    return path.is_dir() and any(
        any(path.rglob(pattern)) for pattern in ("record.json", "records*.jsonl")
    )


def _check_names(part: BaseModel, names: Iterable[str], path: Path) -> None:
    for name in names:
        value = getattr(part, name)
        if not value.isprintable():
            raise InputError(
                f"{path}: {name} {value[:100]!r} holds what cannot be shown: rename it"
            )


def _check_links(links: LinksRecord, path: Path) -> None:
    _check_names(links, ("machine", "device", "backend"), path)
    for moved in links.transfers:
        spread = moved.seconds
        values = (moved.message_bytes, spread.p10, moved.bus_bytes_per_s, spread.p90)
        if not all(0 < value < LARGEST for value in (*values, spread.median)):
            raise InputError(
                f"{path}: {links.machine}: {moved.collective} of {moved.message_bytes} bytes: "
                f"size, time and bandwidth must be above zero, and below {LARGEST:g}"
            )


def _check(record: Record, path: Path) -> None:
    """Refuse what cannot be true, by what the fields declare."""
    _check_names(record, _NAMES, path)
    where = f"{path}: {record.model}, {record.layout} on {record.world_size}"
    for name, value, above_zero in _numbers(record):
        if not 0 <= value < LARGEST or (above_zero and value == 0):
            rule = "above zero" if above_zero else "zero or above"
            raise InputError(
                f"{where}: {name} is {value}; it must be {rule} and below {LARGEST:g}, or null "
                "where it was not measured"
            )
    step = record.step_s
    if step is not None and not step.p10 <= step.median <= step.p90:
        raise InputError(
            f"{where}: step_s needs p10 <= median <= p90, found {step.p10}, {step.median}, "
            f"{step.p90}"
        )


def _numbers(part: BaseModel, prefix: str = "") -> Iterator[tuple[str, float, bool]]:
    """Yield the numbers of a record and of its parts: dotted name, value, whether above zero."""
    declared = told(type(part))
    for name, value in vars(part).items():
        if isinstance(value, (int, float)):
            yield prefix + name, value, declared[name].above_zero
        elif isinstance(value, BaseModel):
            yield from _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            for one in value:
                if isinstance(one, BaseModel):
                    yield from _numbers(one, f"{prefix}{name}.")
