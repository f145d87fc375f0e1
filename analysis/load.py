"""Records and curves of collectives come in here; what cannot be true is refused."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from hpcgeo.errors import InputError
from hpcgeo.records import Links, Record, read, read_links

#: No number of a study is larger; axes cannot show what is near the end of floats.
LARGEST = 1e30

_NAMES = ("machine", "device", "model", "objective", "strategy", "dtype", "data", "recompute")
_COUNTS = ("nodes", "world_size", "micro_batch", "accumulate", "global_batch")
_POSITIVE = (
    *("images_per_s", "mfu", "hfu", "peak_memory_bytes", "peak_flops_per_s", "model_flops"),
    *("counted_flops", "executed_flops", "product_flops_per_s"),
)
_TIMES = ("data_wait_s", "comm_s")
_PARTS = ("phases", "activity", "cross_check", "memory", "predicted_memory", "wait")


def load(paths: Iterable[Path]) -> tuple[list[Record], list[Links], int]:
    """Return the records and the curves of files and folders, and how many copies were left out.

    Raises:
        InputError: nothing there, no record in it, or a line that is not a sound record.
    """
    paths = list(paths)
    found: dict[str, Record] = {}
    curves: list[Links] = []
    read_in = 0
    for path in paths:
        links = _of_links(path)
        for curve in read_links([path]) if links else []:
            _check_links(curve, path)
            curves.append(curve)
        records = [] if links and not _of_records(path) else read([path])
        for record in records:
            _check(record, path)
            found.setdefault(record.model_dump_json(), record)
        read_in += len(records)
    if not found and not curves:
        names = ", ".join(str(path) for path in paths) or "no files given"
        raise InputError(f"no records in {names}; `hpcgeo profile` writes them")
    unique = list({curve.model_dump_json(): curve for curve in curves}.values())
    return list(found.values()), unique, read_in - len(found)


def _of_links(path: Path) -> bool:
    """Whether a file, or something below a folder, holds curves of collectives."""
    if path.is_dir():
        return any(path.rglob("links*.jsonl"))
    return path.name.startswith("links")


def _of_records(path: Path) -> bool:
    return path.is_dir() and any(
        any(path.rglob(pattern)) for pattern in ("record.json", "records*.jsonl")
    )


def _check_names(part: Record | Links, names: Iterable[str], path: Path) -> None:
    for name in names:
        value = getattr(part, name)
        if not value.isprintable():
            raise InputError(
                f"{path}: {name} {value[:100]!r} holds what cannot be shown: rename it"
            )


def _check_links(links: Links, path: Path) -> None:
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
    _check_names(record, _NAMES, path)
    values = [(name, getattr(record, name), True) for name in (*_COUNTS, *_POSITIVE)]
    values += [(name, getattr(record, name), False) for name in _TIMES]
    step = record.step_s
    if record.tokens_per_s is not None:
        values += [("tokens_per_s.median", record.tokens_per_s.median, True)]
    if step is not None:
        values += [(f"step_s.{name}", getattr(step, name), True) for name in _SPREAD]
    for name in _PARTS:
        part = getattr(record, name)
        values += [(f"{name}.{key}", value, False) for key, value in _numbers(part)]
    if record.energy is not None:
        values += [("energy.joules", record.energy.joules, True)]
        values += [("energy.images", record.energy.images, True)]
    for moved in record.traffic:
        values += [("traffic.ranks", moved.ranks, True)]
        values += [(f"traffic.{key}", value, False) for key, value in _numbers(moved)]
    for name, value, positive in values:
        if value is None:
            continue
        if not 0 <= value < LARGEST or (positive and value == 0):
            rule = "above zero" if positive else "zero or above"
            raise InputError(
                f"{path}: {record.model}, {record.layout} on {record.world_size}: {name} is "
                f"{value}; it must be {rule} and below {LARGEST:g}, or null where it was not "
                "measured"
            )
    if step is not None and not step.p10 <= step.median <= step.p90:
        raise InputError(
            f"{path}: {record.model}, {record.layout} on {record.world_size}: step_s needs "
            f"p10 <= median <= p90, found {step.p10}, {step.median}, {step.p90}"
        )


_SPREAD = ("p10", "median", "p90")


def _numbers(part: object) -> Sequence[tuple[str, float]]:
    fields = vars(part) if part is not None else {}
    return [(key, value) for key, value in fields.items() if isinstance(value, (int, float))]
