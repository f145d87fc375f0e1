"""The table of all points and failures as CSV: SI units, one row each, missing is empty."""

import csv
import io
from collections.abc import Mapping, Sequence

from hpcgeo.measured import Activity, Memory, Phases
from hpcgeo.records import Record
from hpcgeo_analysis.comparisons import Comparison
from hpcgeo_analysis.figures.energy import carbon, energy, kwh
from hpcgeo_analysis.points import CONTEXT, KINDS, StudyPoint, declared, median_of
from hpcgeo_analysis.utilisation import mfu, peak

_ACTIVITY, _PHASES = [*Activity.model_fields], [*Phases.model_fields]


def table(
    comparisons: Sequence[Comparison], points: Sequence[StudyPoint], records: Sequence[Record]
) -> str:
    """Return the CSV."""
    rows: dict[StudyPoint, dict[str, object]] = {point: _row(point) for point in points}
    for comparison in comparisons:
        for scaled in comparison.scaled:
            row = rows[scaled.point]
            row[f"{comparison.mode}_efficiency"] = scaled.efficiency
            row[f"{comparison.mode}_base_devices"] = scaled.base.devices if scaled.base else None
    failed = [
        _place(record) | _declared(StudyPoint((), (record,)), _place(record))
        for record in records
        if record.status != "ok"
    ]
    all_rows = [*rows.values(), *failed]
    head = list(dict.fromkeys(key for row in all_rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, head, lineterminator="\n")
    writer.writeheader()
    writer.writerows(all_rows)
    return text.getvalue()


def _declared(point: StudyPoint, row: Mapping[str, object]) -> dict[str, object]:
    """Return the fields that a row has no column for; parts have columns of their own."""
    return {
        name: median_of(point, name)
        for name, shown in declared(point.first).items()
        if name not in row
        and (shown.section == "other" or (shown.plain and shown.section != "head"))
    }


def _place(record: Record) -> dict[str, object]:
    return {
        **{name: value for name, value in record.key.items() if name != CONTEXT[-1]},
        "strategy": record.strategy,
        "layout": record.layout,
        "devices": record.world_size,
        "nodes": record.nodes,
        "micro_batch": record.micro_batch,
        "accumulate": record.accumulate,
        "global_batch": record.global_batch,
        "parameters": record.parameters,
        "status": record.status,
        "error": record.error,
        "commit": record.commit,
    }


def _row(point: StudyPoint) -> dict[str, object]:
    low, high = point.range or (None, None)
    step_low, step_high = point.step_range or (None, None)
    share, found = mfu(point), energy(point)
    shown = peak(point) if share is not None else None
    by_cause = point.memory or Memory()
    activity, phases = point.typical("activity") or {}, point.typical("phases") or {}
    commits = {record.commit for record in point.records if record.commit}
    row: dict[str, object] = {
        **_place(point.first),
        "commit": " ".join(sorted(commits)),
        "runs": len(point.records),
        "noisy": point.noisy,
        "stable": all(point.all(lambda record: record.stable)) if _settled(point) else None,
        "images_per_s": point.images_per_s,
        "images_per_s_low": low,
        "images_per_s_high": high,
        "images_per_s_per_device": point.per_device,
        "tokens_per_s": point.tokens_per_s,
        "padding": point.median(lambda record: record.padding),
        "step_s": point.step_s,
        "step_p10_s": step_low,
        "step_p90_s": step_high,
        "weak_efficiency": None,
        "weak_base_devices": None,
        "strong_efficiency": None,
        "strong_base_devices": None,
        "peak_memory_bytes": point.memory_bytes,
        "memory_source": point.memory_source,
        "data_wait_s": point.median(lambda record: record.data_wait_s),
        "comm_s": point.median(lambda record: record.comm_s),
        "mfu": share,
        "hfu": mfu(point, "hfu"),
        "peak_flops_per_s": shown[0] if shown else None,
        "peak_source": shown[1] if shown else None,
        **{f"activity_{key}": activity.get(key) for key in _ACTIVITY},
        **{f"phase_{key}": phases.get(key) for key in _PHASES},
        **{f"memory_{key}": getattr(by_cause, key) for key in Memory.model_fields},
        **{f"memory_peak_{kind}_bytes": point.held.get(kind) for kind in KINDS},
        "joules_per_image": found.joules_per_image if found else None,
        "kwh_per_million_images": kwh_of(point),
        "kg_co2_per_million_images": carbon(found) if found else None,
    }
    return row | _declared(point, row)


def kwh_of(point: StudyPoint) -> float | None:
    """Return the energy of a million images in kWh, where a counter saw it."""
    found = energy(point)
    return kwh(found) if found else None


def _settled(point: StudyPoint) -> bool:
    return bool(point.all(lambda record: record.stable))
