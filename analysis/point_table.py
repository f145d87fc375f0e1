"""The one table: every point with what was measured of it; empty columns fall away."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from hpcgeo_analysis import naming
from hpcgeo_analysis.blocks import ALIKE, Study
from hpcgeo_analysis.comparisons import Comparison, Scaled
from hpcgeo_analysis.export import kwh_of
from hpcgeo_analysis.formatting import digits, gib, percent, rate, seconds
from hpcgeo_analysis.points import StudyPoint
from hpcgeo_analysis.utilisation import mfu
from hpcgeo_analysis.winners import Field, node_hours


@dataclass(frozen=True)
class PointRow:
    """A point of the study: where it stands among others, and what its cells say.

    Attributes:
        number: of the point in the page's records.
        line: whose colour, letter and mark it has.
        standing: ``best``, ``tie`` or nothing.
        cells: text and the value that a column sorts by, None where nothing was measured.
    """

    number: int
    point: StudyPoint
    line: str
    standing: str
    cells: tuple[tuple[str, float | str] | None, ...]


@dataclass(frozen=True)
class PointTable:
    """Columns (title, whether of numbers), rows, and what all rows share."""

    columns: tuple[tuple[str, bool], ...]
    rows: tuple[PointRow, ...]
    common: str

    @property
    def standing(self) -> bool:
        """Whether some rows are the best, so that they can be shown alone."""
        return any(row.standing for row in self.rows)


@dataclass(frozen=True)
class _Standing:
    """A point in the comparisons that hold it."""

    scaled: Scaled
    share: float | None = None
    standing: str = ""
    weak: float | None = None
    strong: float | None = None


_Value = Callable[[StudyPoint, _Standing], float | int | str | None]
#: Columns of numbers: title, words of a value, and the value.
_NUMBERS: tuple[tuple[str, Callable[[float], str], _Value], ...] = (
    ("devices", lambda v: f"{v:,.0f}", lambda p, s: p.devices),
    ("nodes", lambda v: f"{v:,.0f}", lambda p, s: p.nodes),
    ("micro-batch", lambda v: f"{v:,.0f}", lambda p, s: p.first.micro_batch),
    ("accumulation", lambda v: f"{v:,.0f}", lambda p, s: p.first.accumulate),
    ("images/s", rate, lambda p, s: p.images_per_s),
    ("per device", rate, lambda p, s: p.per_device),
    ("of the best", percent, lambda p, s: s.share),
    ("weak efficiency", percent, lambda p, s: s.weak),
    ("strong efficiency", percent, lambda p, s: s.strong),
    ("step", seconds, lambda p, s: p.step_s),
    ("p10", seconds, lambda p, s: p.step_range[0] if p.step_range else None),
    ("p90", seconds, lambda p, s: p.step_range[1] if p.step_range else None),
    ("tokens/s", rate, lambda p, s: p.tokens_per_s),
    ("data wait", percent, lambda p, s: _of_step(p, "data_wait_s")),
    ("collectives", percent, lambda p, s: _of_step(p, "comm_s")),
    ("MFU", percent, lambda p, s: mfu(p)),
    ("HFU", percent, lambda p, s: mfu(p, "hfu")),
    ("memory, GiB", gib, lambda p, s: next(iter(p.held.values()), None)),
    ("of device", percent, lambda p, s: _of_device(p)),
    ("node-h / M images", digits, lambda p, s: node_hours(p)),
    ("kWh / M images", digits, lambda p, s: kwh_of(p)),
    ("runs", lambda v: f"{v:,.0f}", lambda p, s: len(p.records)),
)
#: Columns that stand below the table, once, where they say the same in every row.
_ONCE = ("model", "setting", "nodes", "micro-batch", "accumulation", "runs", "memory is")


def point_table(study: Study, fields: Sequence[Field]) -> PointTable:
    """Return every point that ran or was predicted, by size of model, devices, then rate."""
    models = sorted({p.first.model for p in study.points}, key=lambda m: (_size(study, m), m))
    labels = naming.models(models)[1]
    standings = _standings(study.comparisons, fields)
    order = sorted(
        enumerate(study.points),
        key=lambda pair: (
            models.index(pair[1].first.model),
            pair[1].devices,
            -(pair[1].images_per_s or 0),
        ),
    )
    titles = ["model", *(title for title, _, _ in _NUMBERS), "memory is", "setting", "mark"]
    titles.append("unlike its base")
    rows = []
    for number, point in order:
        standing = standings.get(point) or _Standing(Scaled(point, point.layout))
        cells: list[tuple[str, float | str] | None] = [_word(labels[point.first.model])]
        for _, words, of in _NUMBERS:
            value = of(point, standing)
            cells.append(None if value is None else (words(float(value)), float(value)))
        setting = study.setting(point)
        cells += [
            _word(next(iter(point.held), "")),
            _word("" if setting == ALIKE else setting),
            _word(point.mark),
            _word("; ".join(standing.scaled.footnotes)),
        ]
        rows.append((number, point, standing, cells))
    common, kept = [], []
    for place, title in enumerate(titles):
        said = {cells[place] for *_, cells in rows}
        if said == {None}:
            continue
        if len(said) == 1 and title in _ONCE:
            common.append(f"{title} {next(iter(said))[0]}")  # type: ignore[index]
        else:
            kept.append(place)
    return PointTable(
        tuple((titles[place], 0 < place <= len(_NUMBERS)) for place in kept),
        tuple(
            PointRow(number, p, s.scaled.line, s.standing, tuple(cells[place] for place in kept))
            for number, p, s, cells in rows
        ),
        f"In every row: {', '.join(common)}." if common else "",
    )


def _standings(
    comparisons: Iterable[Comparison], fields: Sequence[Field]
) -> dict[StudyPoint, _Standing]:
    shares: dict[StudyPoint, tuple[float, str]] = {}
    rivals = [each for each in fields if len(each.ranked) > 1] or fields
    for each in rivals:
        top = each.best.point.images_per_s or 1.0
        for scaled in each.ranked:
            standing = "best" if scaled is each.best else "tie" * (scaled in each.tied)
            shares.setdefault(scaled.point, ((scaled.point.images_per_s or 0) / top, standing))
    found: dict[StudyPoint, dict[str, float | None]] = {}
    lines: dict[StudyPoint, Scaled] = {}
    for comparison in comparisons:
        for scaled in comparison.scaled:
            lines.setdefault(scaled.point, scaled)
            found.setdefault(scaled.point, {})[comparison.mode] = scaled.efficiency
    standings = {}
    for point, scaled in lines.items():
        share, standing = shares.get(point, (None, ""))
        own = found[point]
        standings[point] = _Standing(scaled, share, standing, own.get("weak"), own.get("strong"))
    return standings


def _word(text: str) -> tuple[str, str] | None:
    return (text, text) if text else None


def _size(study: Study, model: str) -> int:
    return max(p.parameters or 0 for p in study.points if p.first.model == model)


def _of_step(point: StudyPoint, name: str) -> float | None:
    part = point.median(lambda record: getattr(record, name))
    return part / point.step_s if part is not None and point.step_s else None


def _of_device(point: StudyPoint) -> float | None:
    limit = point.memory.limit_bytes if point.memory else None
    held = next(iter(point.held.values()), None)
    return held / limit if held and limit else None
