"""What encoders gained over one baseline, and what their pretraining took: the table of GFM.

ARP, the average relative performance (Mendieta et al. 2023, arXiv 2302.04476), is the mean over
tasks of (score - baseline) / baseline. It is formed over the columns that all rows have, so that
rows can be held against each other.
"""

from collections.abc import Sequence

from hpcgeo.errors import InputError
from hpcgeo.machines import Grid, device_of
from hpcgeo.scores import Pretraining
from hpcgeo.tables import find
from hpcgeo_analysis.formatting import NOT_MEASURED, counted, listed
from hpcgeo_analysis.scores.board import ScoreBoard, ScoreColumn, ScoreRow, amount
from hpcgeo_analysis.tables import Table, TableCell, text


def gains(board: ScoreBoard, baseline: str | None = None, grid: Grid | None = None) -> Table | None:
    """Return the table; None where no encoder has either.

    Args:
        board: all scores.
        baseline: name of a row; by default the random weights, where there is one row of them.
        grid: whose carbon is counted.

    Raises:
        InputError: no row is called so, or it shares no column with all encoders.
    """
    encoders = [row for row in board.rows if row.first.whose == "encoder"]
    of_random = [row for row in board.rows if row.first.whose == "random"]
    base = None
    if baseline is not None:
        base = find({row.name: row for row in board.rows}, baseline, "row of scores")
    elif len(of_random) == 1:
        [base] = of_random
    shared = _shared(board, [*encoders, base]) if base else []
    if baseline is not None and not shared:
        raise InputError(
            f"--baseline {baseline}: no column has a score above zero of it and of every encoder: "
            f"choose another row, or give fewer scores"
        )
    if not shared and not any(row.first.pretraining for row in encoders):
        return None
    head = ["features", "objective", "samples", "FLOPs", "node-hours", "kWh"]
    head += ["kg CO2"] if grid else []
    head += ["ARP"] if shared else []
    rows = []
    for row in encoders:
        cells = [text(row.name), *_costs(row.first.pretraining, grid)]
        if base and shared:
            share = arp(row, base, shared)
            cells.append(TableCell(f"{share:+.1%}".replace("-", "\N{MINUS SIGN}"), share))
        rows.append(cells)
    notes = _notes(board, base, shared, encoders, grid)
    return Table("What was gained, and what the pretraining took", head, rows, notes)


def arp(row: ScoreRow, base: ScoreRow, columns: Sequence[ScoreColumn]) -> float:
    """Return the average relative performance of a row over columns that it shares with a base."""
    shares = []
    for column in columns:
        entries = dict(column.entries)
        own, other = entries[row.name].value, entries[base.name].value
        assert own is not None and other is not None
        shares.append(column.sign * (own - other) / other)
    return sum(shares) / len(shares)


def _shared(board: ScoreBoard, rows: Sequence[ScoreRow]) -> list[ScoreColumn]:
    """Return the columns in which all rows have a score, the last one's above zero."""
    found = []
    for column in board.columns:
        values = [dict(column.entries).get(row.name) for row in rows]
        known = [score.value for score in values if score and score.value is not None]
        if len(known) == len(rows) and known[-1] > 0:
            found.append(column)
    return found


def _costs(took: Pretraining | None, grid: Grid | None) -> list[TableCell]:
    if took is None:
        return [text("not known")] * (6 if grid else 5)
    kwh, bound = energy(took), "" if took.kwh is not None else "at most "
    cells = [
        text(took.objective),
        TableCell(amount(took.samples), float(took.samples)),
        _amount(took.flops),
        _amount(took.node_hours),
        _amount(kwh, bound),
    ]
    if grid:
        kg = None if kwh is None else kwh * grid.g_per_kwh.value / 1000
        cells.append(_amount(kg, bound))
    return cells


def energy(took: Pretraining) -> float | None:
    """Return kWh of a pretraining, as counters said or at most, by board power; None: not known."""
    if took.kwh is not None:
        return took.kwh
    device = device_of(took.device)
    if device is None or device.watts is None or took.devices is None:
        return None
    return took.devices * device.watts * took.node_hours / took.nodes / 1000


def _amount(value: float | None, before: str = "") -> TableCell:
    return text(NOT_MEASURED) if value is None else TableCell(before + amount(value), value)


def _notes(
    board: ScoreBoard,
    base: ScoreRow | None,
    shared: Sequence[ScoreColumn],
    encoders: Sequence[ScoreRow],
    grid: Grid | None,
) -> list[str]:
    notes = []
    if base and shared:
        over = listed([column.title for column in shared])
        left = len(board.columns) - len(shared)
        without = f"; left out, as not all have it: {counted(left, 'column')}" if left else ""
        notes.append(
            f"ARP, average relative performance (GFM, arXiv 2302.04476): the mean of (score - "
            f"baseline) / baseline over {over}{without}. Baseline: {base.name}."
        )
    else:
        notes.append(
            "No ARP, the average relative performance: name with --baseline the row it is against."
        )
    took = [row.first.pretraining for row in encoders if row.first.pretraining]
    if any(energy(one) is not None and one.kwh is None for one in took):
        notes.append("At most, of devices alone: no counter was read; board power x hours.")
    if grid:
        fact = grid.g_per_kwh
        notes.append(f"CO2: {fact.value:g} g/kWh ({grid.title}; {fact.source}).")
    return notes
