"""The tables of the report: cells with the text a reader sees and the value a column sorts by."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from hpcgeo.records import MISSING, Record
from hpcgeo_analysis.findings import memory_sources
from hpcgeo_analysis.scaling import Comparison, Point, Scaled
from hpcgeo_analysis.words import (
    NOT_MEASURED,
    counted,
    flops,
    gib,
    listed,
    percent,
    rate,
    seconds,
    span,
)

#: Hosts named before the rest is counted.
HOSTS = 4


@dataclass(frozen=True)
class Cell:
    """What stands in a table: its text, what it sorts by, and how it looks."""

    text: str
    sort: float | str = ""
    look: str = ""
    line: str = ""


@dataclass(frozen=True)
class Table:
    """Rows under a head; `notes` stand below."""

    head: list[str]
    rows: list[list[Cell]]
    notes: list[str]

    @cached_property
    def numeric(self) -> list[bool]:
        """Whether each column sorts by number and stands to the right."""
        columns = zip(*self.rows, strict=True) if self.rows else [()] * len(self.head)
        return [
            bool(column) and all(isinstance(cell.sort, float) for cell in column)
            for column in columns
        ]


def number(text: str, value: float | None, look: str = "") -> Cell:
    """Return a cell that sorts by number; a missing one comes last and says so."""
    if value is None:
        return Cell(text, -math.inf, "missing")
    return Cell(text, float(value), look)


def throughput(comparison: Comparison) -> Table:
    """Return throughput of every point, with its spread and its distance from the fastest."""
    best: dict[int, float] = {}
    for scaled in comparison.scaled:
        count = scaled.point.devices
        best[count] = max(best.get(count, 0.0), scaled.point.images_per_s or 0.0)
    head = ["strategy", "devices", "images/s", "p10 to p90", "images/s per device"]
    head += ["of the fastest", "notes", "MFU", "nodes", "micro-batch", "accumulation", "runs"]
    rows = [_throughput_row(scaled, best[scaled.point.devices]) for scaled in comparison.scaled]
    table = _without_empty(head, rows, {"p10 to p90": "spread", "MFU": "MFU"})
    table = _without_constant(table, ("nodes", "micro-batch", "accumulation", "runs"))
    peaks: dict[str, list[float]] = {}
    for point in (scaled.point for scaled in comparison.scaled):
        if point.peak_source and point.peak_flops_per_s:
            peaks.setdefault(point.peak_source, []).append(point.peak_flops_per_s)
    for source, values in sorted(peaks.items()):
        low, high = flops(min(values)), flops(max(values))
        extent = low if low == high else f"{low} to {high}"
        table.notes.append(f"MFU against {extent} a device, {source}.")
    return table


def _throughput_row(scaled: Scaled, best: float) -> list[Cell]:
    point = scaled.point
    share = point.images_per_s / best if point.images_per_s else None
    notes = ["fastest"] if share == 1 else []
    notes += ["noisy"] if scaled.noisy else []
    return [
        Cell(scaled.line, scaled.line, "line", scaled.line),
        number(f"{point.devices:,}", point.devices),
        number(rate(point.images_per_s), point.images_per_s, "best" if share == 1 else ""),
        number(span(point.low, point.high), point.low),
        number(rate(point.per_device), point.per_device),
        number(percent(share), share),
        Cell(", ".join(notes), ", ".join(notes), "noisy" if scaled.noisy else ""),
        _mfu(point),
        number(f"{point.nodes:,}", point.nodes),
        number(f"{point.micro_batch:,}", point.micro_batch),
        number(f"{point.accumulate:,}", point.accumulate),
        number(f"{len(point.rows):,}", len(point.rows)),
    ]


def _mfu(point: Point) -> Cell:
    if point.mfu is None:
        return number(NOT_MEASURED, None)
    if not point.peak_source or point.peak_flops_per_s is None:
        return number("not shown: no source of the peak", None)
    if point.mfu > 1:
        return number("not shown: above 100 %", None)
    return number(f"{percent(point.mfu)} ({point.peak_source})", point.mfu)


def efficiency(comparison: Comparison) -> Table:
    """Return the efficiency of each line by number of devices."""

    def cell(scaled: Scaled) -> Cell:
        if scaled.efficiency is None:
            return number("no claim" if scaled.point.images_per_s else NOT_MEASURED, None)
        text = percent(scaled.efficiency)
        if scaled.low is not None:
            text += f" ({percent(scaled.low)} to {percent(scaled.high)})"
        if scaled.point is scaled.base:
            text += " base"
        return number(_marked(text, scaled), scaled.efficiency, _noisy(scaled))

    table = _pivot(comparison, comparison.scaled, cell)
    for row in table.rows:
        base = comparison.lines[row[0].line][-1].base
        text = f"{base.devices:,} on {counted(base.nodes, 'node')}" if base else "one size only"
        row.insert(1, number(text, base.devices if base else None))
    table.head.insert(1, "smallest run (devices)")
    return table


def memory(comparison: Comparison) -> list[Table]:
    """Return peak memory of each line by number of devices, one table for each kind measured."""
    tables = []
    for source in memory_sources(comparison):
        known = [scaled for scaled in comparison.scaled if scaled.point.memory_source == source]

        def cell(scaled: Scaled) -> Cell:
            value = scaled.point.memory_bytes
            return number(_marked(gib(value), scaled), value, _noisy(scaled))

        table = _pivot(comparison, known, cell)
        table.notes.append(f"GiB = 2^30 bytes, {source} memory of the worst rank.")
        tables.append(table)
    return tables


def lost_time(comparison: Comparison) -> Table | None:
    """Return wait for data and communication per step, or nothing where neither was measured."""
    rows = []
    for scaled in comparison.scaled:
        point = scaled.point
        if point.data_wait_s is None and point.comm_s is None:
            continue
        row = [
            Cell(scaled.line, scaled.line, "line", scaled.line),
            number(f"{point.devices:,}", point.devices),
            number(_marked(seconds(point.step_s), scaled), point.step_s, _noisy(scaled)),
        ]
        for value in (point.data_wait_s, point.comm_s):
            share = value / point.step_s if value is not None and point.step_s else None
            row += [number(seconds(value), value), number(percent(share), share)]
        rows.append(row)
    head = ["strategy", "devices", "step", "wait for data", "of the step"]
    head += ["collectives run", "of the step "]
    return Table(head, rows, []) if rows else None


def failures(records: Sequence[Record]) -> Table | None:
    """Return the failed points with their cause."""
    head = ["model", "strategy", "devices", "nodes", "micro-batch", "dtype", "cause", "command"]
    rows = [
        [
            Cell(record.model, record.model),
            Cell(record.layout, record.layout),
            number(f"{record.world_size:,}", record.world_size),
            number(f"{record.nodes:,}", record.nodes),
            number(f"{record.micro_batch:,}", record.micro_batch),
            Cell(record.dtype, record.dtype),
            Cell(record.error or "not recorded", record.error or ""),
            Cell(record.command or MISSING, record.command or "", "code"),
        ]
        for record in records
        if record.status == "failed"
    ]
    return Table(head, rows, []) if rows else None


_ENVIRONMENT = ("kind", "machine", "device", "hosts", "versions", "commit", "dirty", "source")


def environments(frame: pd.DataFrame) -> tuple[Table, list[str]]:
    """Return what surrounded the records, each surrounding once, and the name of each record's."""
    names: dict[tuple[str, ...], str] = {}
    used = []
    for values in frame[list(_ENVIRONMENT)].itertuples(index=False, name=None):
        names.setdefault(values, f"E{len(names) + 1}")
        used.append(names[values])
    rows = []
    for values, name in names.items():
        shown = dict(zip(_ENVIRONMENT, values, strict=True))
        shown["hosts"] = _hosts(shown["hosts"])
        rows.append([Cell(name, name), *(Cell(text, text) for text in shown.values())])
    head = ["name", "kind", "machine", "device", "hosts", "versions", "commit", "tree"]
    table = _without_empty([*head, "source"], rows, {"source": "source"})
    return Table(table.head, table.rows, []), used


def provenance(frame: pd.DataFrame, used: Sequence[str]) -> Table:
    """Return how each record was made."""
    head = ["model", "strategy", "devices", "status", "made in", "steps: warm-up + measured"]
    head += ["step: p10 / median / p90", "made at", "command"]
    rows = []
    for row, name in zip(frame.to_dict("records"), used, strict=True):
        spread = [seconds(row[key]) for key in ("step_p10_s", "step_s", "step_p90_s")]
        timed = not math.isnan(row["step_s"])
        step = number(" / ".join(spread), row["step_s"]) if timed else number(NOT_MEASURED, None)
        status = "noisy" if row["noisy"] else row["status"]
        rows.append(
            [
                Cell(row["model"], row["model"]),
                Cell(row["layout"], row["layout"]),
                number(f"{row['devices']:,}", row["devices"]),
                Cell(status, status, "" if status == "ok" else "noisy"),
                Cell(name, name),
                Cell(f"{_steps(row['warmup_steps'])} + {_steps(row['measured_steps'])}"),
                step,
                Cell(row["created"], row["created"]),
                Cell(row["command"], row["command"], "code"),
            ]
        )
    return Table(head, rows, [])


def points(comparisons: Sequence[Comparison], frame: pd.DataFrame) -> pd.DataFrame:
    """Return the table of all points and failures, in SI units, one row each; missing is empty."""
    rows: dict[Point, dict[str, object]] = {}
    for comparison in comparisons:
        for scaled in comparison.scaled:
            if scaled.point not in rows:
                rows[scaled.point] = _plain(scaled.point, frame, comparison)
            row = rows[scaled.point]
            row[f"{comparison.mode}_efficiency"] = scaled.efficiency
            row[f"{comparison.mode}_base_devices"] = scaled.base.devices if scaled.base else None
    failed = frame.loc[frame["status"] == "failed", _FAILED].to_dict("records")
    table = pd.DataFrame([*rows.values(), *failed])
    whole = ["weak_base_devices", "strong_base_devices", "runs", "peak_memory_bytes"]
    for column in (*whole, "parameters"):
        if column in table:
            table[column] = table[column].astype("Int64")
    return table


_FAILED = [
    *("kind", "machine", "device", "model", "objective", "chip", "dtype", "data", "strategy"),
    *("layout", "devices", "nodes", "micro_batch", "accumulate", "global_batch", "status"),
    *("error", "commit"),
]


def _plain(point: Point, frame: pd.DataFrame, comparison: Comparison) -> dict[str, object]:
    shown = point.mfu is not None and point.mfu <= 1 and bool(point.peak_source)
    commits = sorted(set(frame.loc[list(point.rows), "commit"]))
    return {
        **{name: value for name, value in comparison.context.items() if name != "knobs"},
        "strategy": point.strategy,
        "layout": point.layout,
        "devices": point.devices,
        "nodes": point.nodes,
        "micro_batch": point.micro_batch,
        "accumulate": point.accumulate,
        "global_batch": point.global_batch,
        "parameters": point.parameters,
        "status": "ok",
        "error": None,
        "runs": len(point.rows),
        "noisy": point.noisy,
        "images_per_s": point.images_per_s,
        "images_per_s_low": point.low,
        "images_per_s_high": point.high,
        "images_per_s_per_device": point.per_device,
        "step_s": point.step_s,
        "step_p10_s": point.step_low_s,
        "step_p90_s": point.step_high_s,
        "weak_efficiency": None,
        "weak_base_devices": None,
        "strong_efficiency": None,
        "strong_base_devices": None,
        "peak_memory_bytes": point.memory_bytes,
        "memory_source": point.memory_source or None,
        "data_wait_s": point.data_wait_s,
        "comm_s": point.comm_s,
        "mfu": point.mfu if shown else None,
        "peak_flops_per_s": point.peak_flops_per_s if shown else None,
        "peak_source": point.peak_source if shown else None,
        "commit": " ".join(commits),
    }


def _pivot(
    comparison: Comparison, known: Sequence[Scaled], cell: Callable[[Scaled], Cell]
) -> Table:
    counts = sorted({scaled.point.devices for scaled in known})
    rows = []
    for line in comparison.lines:
        here = {s.point.devices: s for s in known if s.line == line}
        if not here:
            continue
        cells = [
            cell(here[count]) if count in here else number(NOT_MEASURED, None) for count in counts
        ]
        rows.append([Cell(line, line, "line", line), *cells])
    return Table(["strategy", *(counted(count, "device") for count in counts)], rows, [])


def _without_empty(head: list[str], rows: list[list[Cell]], optional: dict[str, str]) -> Table:
    """Leave out optional columns that nobody measured, and say so below."""
    gone = [
        place
        for place, title in enumerate(head)
        if title in optional
        and all(row[place].look == "missing" or row[place].text == MISSING for row in rows)
        and not any(row[place].text.startswith("not shown") for row in rows)
    ]
    names = [optional[head[place]] for place in gone]
    kept = [place for place in range(len(head)) if place not in gone]
    return Table(
        [head[place] for place in kept],
        [[row[place] for place in kept] for row in rows],
        [f"Not measured in any point here: {listed(names)}."] if names else [],
    )


def _without_constant(table: Table, titles: Sequence[str]) -> Table:
    """Leave out columns that say the same in every row, and say it once below."""
    same = [
        place
        for place, title in enumerate(table.head)
        if title in titles and len({row[place].text for row in table.rows}) == 1
    ]
    kept = [place for place in range(len(table.head)) if place not in same]
    said = [f"{table.head[place]} {table.rows[0][place].text}" for place in same]
    return Table(
        [table.head[place] for place in kept],
        [[row[place] for place in kept] for row in table.rows],
        [*table.notes, *([f"In every row: {', '.join(said)}."] if said else [])],
    )


def _marked(text: str, scaled: Scaled) -> str:
    return f"{text} (noisy)" if scaled.noisy else text


def _noisy(scaled: Scaled) -> str:
    return "noisy" if scaled.noisy else ""


def _steps(value: float) -> str:
    return MISSING if math.isnan(value) else f"{value:,.0f}"


def _hosts(text: str) -> str:
    names = text.split(", ")
    rest = len(names) - HOSTS
    return text if rest < 1 else f"{', '.join(names[:HOSTS])} and {rest} more ({len(names)} hosts)"
