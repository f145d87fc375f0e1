"""How much of the peak is used: MFU and HFU, with the source of the peak."""

from collections.abc import Sequence

from hpcgeo_analysis.blocks import ReportBlock, Section, Study
from hpcgeo_analysis.comparisons import Comparison, Scaled
from hpcgeo_analysis.formatting import NOT_MEASURED, counted, flops, percent, rate
from hpcgeo_analysis.points import StudyPoint
from hpcgeo_analysis.tables import (
    Table,
    TableCell,
    line,
    number,
    text,
    valued,
    whole,
    without_constant,
    without_empty,
)
from hpcgeo_analysis.utilisation import flops_per_s, mfu, peak
from hpcgeo_analysis.winners import most_used


def section(study: Study) -> Section:
    """Return MFU and HFU of every comparison."""
    blocks = []
    for comparison in study.once:
        known = [s for s in comparison.scaled if _known(s.point)]
        if known:
            blocks.append(
                ReportBlock(comparison.title, _sentences(comparison), (), [_table(known)])
            )
    intro = (
        "MFU is the FLOPs of the mathematics over step time and peak of all devices; HFU counts "
        "recompute too. Shown only with the source of the peak."
    )
    return Section("mfu", "MFU", intro, blocks)


def _known(point: StudyPoint) -> bool:
    return any(record.mfu or record.hfu or record.product_flops_per_s for record in point.records)


def _sentences(comparison: Comparison) -> list[str]:
    found = []
    for dtype, most in most_used(comparison).items():
        on = counted(most.scaled.point.devices, "device")
        found.append(
            f"In {dtype} a device achieves most under {most.scaled.name} on {on}: "
            f"{flops(most.flops_per_s)}, an MFU of {percent(most.mfu)} of "
            f"{flops(most.peak_flops_per_s)} ({most.peak_source})."
        )
    if not found and comparison.noun == "samples":
        found.append("No MFU: steps of a mixture differ in their tokens, and so in their FLOPs.")
    return found + _products(comparison)


def _products(comparison: Comparison) -> list[str]:
    shares = []
    for scaled in comparison.scaled:
        product, shown = _product(scaled.point), peak(scaled.point)
        if product and shown and shown[1] != "measured":  # then it is the peak
            shares.append(product / shown[0])
    if not shares:
        return []
    low, high = min(shares), max(shares)
    extent = percent(low) if percent(low) == percent(high) else f"{percent(low)} to {percent(high)}"
    return [f"A matrix product in the same runs reaches {extent} of that peak."]


def _product(point: StudyPoint) -> float | None:
    return point.median(lambda record: record.product_flops_per_s)


def _table(known: Sequence[Scaled]) -> Table:
    rows = []
    for scaled in known:
        point = scaled.point
        shown, product = peak(point), _product(point)
        model = point.median(lambda record: record.model_flops)
        counted_flops = point.median(lambda record: record.counted_flops)
        speed = flops_per_s(point)
        rows.append(
            [
                line(scaled),
                whole(point.devices),
                _share(point, "mfu"),
                _share(point, "hfu"),
                valued(flops, speed),
                valued(flops, shown[0] if shown else None),
                text(shown[1] if shown else "no source"),
                valued(flops, product),
                valued(percent, speed / product if speed and product else None),
                valued(_tera, model),
                valued(_tera, counted_flops),
                valued(_tera, point.median(lambda record: record.executed_flops)),
            ]
        )
    head = ["strategy", "devices", "MFU", "HFU", "a device", "peak", "peak is"]
    head += ["matrix product", "of the product", "TFLOP a step", "TFLOP counted", "TFLOP executed"]
    table = Table("Use of the peak", head, rows)
    table = without_empty(table, ("HFU", *head[4:6], *head[7:]))
    return without_constant(table, ("peak", "peak is"))


def _tera(value: float) -> str:
    return rate(value / 1e12)


def _share(point: StudyPoint, name: str) -> TableCell:
    shares = point.all(lambda record: getattr(record, name))
    if not shares:
        return number(NOT_MEASURED, None)
    if peak(point) is None:
        return number("not shown: no source of the peak", None)
    if max(shares) > 1:
        return number("not shown: above 100 %", None)
    return valued(percent, mfu(point, name))
