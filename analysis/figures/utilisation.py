"""Use of the peak: what a device achieves in FLOP/s; shares of the peak among like precision."""

from collections.abc import Mapping

from hpcgeo_analysis.blocks import Study
from hpcgeo_analysis.figures.bars import BarPart, BarRow, rows
from hpcgeo_analysis.figures.figure import Figure
from hpcgeo_analysis.formatting import flops, listed, percent
from hpcgeo_analysis.styles import style
from hpcgeo_analysis.utilisation import Use, use

#: Bars of the figure.
BARS = 12


def figure(study: Study) -> Figure:
    """Return what the best line of each model achieves, or each line of an only model."""
    scaled = (scaled for comparison in study.once for scaled in comparison.scaled)
    found = [own for own in map(use, scaled) if own and not own.scaled.point.marks]
    if not found:
        hint = "For MFU: a model of the zoo on a device whose peak is known (docs/machines.md)."
        return Figure("mfu", "Use of the peak", missing=hint)
    several = len({own.scaled.point.first.model for own in found}) > 1
    names = study.names if several else {}
    best: dict[tuple[str, str, str], Use] = {}
    for own in found:
        record = own.scaled.point.first
        key = (record.model, record.dtype, "" if several else own.scaled.line)
        if key not in best or own.flops_per_s > best[key].flops_per_s:
            best[key] = own
    shown = sorted(best.values(), key=lambda own: -own.flops_per_s)
    dtypes = dict.fromkeys(own.scaled.point.first.dtype for own in shown)
    alike = [[own for own in shown if own.scaled.point.first.dtype == dtype] for dtype in dtypes]
    return Figure(
        "mfu",
        f"The highest FLOP/s: {study.called(shown[0].scaled.point)}",
        panels=tuple(_draw(own[:BARS], shown[0].flops_per_s, names) for own in alike),
        caption="FLOP/s of the mathematics per device, recompute not counted.",
        sentences=tuple(_best(study, own) for own in alike),
    )


def _best(study: Study, alike: list[Use]) -> str:
    """Return the best share of the peak of a precision."""
    best = max(alike, key=lambda own: own.mfu)
    source = "highest measured" if best.peak_source == "measured" else best.peak_source
    return (
        f"Best MFU in {best.scaled.point.first.dtype}: {percent(best.mfu)} of "
        f"{flops(best.peak_flops_per_s)} ({source}), {study.called(best.scaled.point)}."
    )


def _draw(alike: list[Use], top: float, names: Mapping[str, str]) -> str:
    """Return the bars of one precision.

    `top` is the FLOP/s at the end of the axis; `names` are of models, where there are several.
    """
    factor, unit = (1e12, "TFLOP/s") if top >= 1e12 else (1e9, "GFLOP/s")
    bars = []
    for own in alike:
        model, line = own.scaled.point.first.model, own.scaled.line
        said = f"{flops(own.flops_per_s)}, MFU {percent(own.mfu)}"
        part = BarPart(own.flops_per_s / factor, style(line).css, said)
        label = f"{names[model]}, {line}" if names else line
        value = f"MFU {percent(own.mfu)}"
        bars.append(BarRow(line, style(line), label, value, [part], model=model))
    dtype = alike[0].scaled.point.first.dtype
    parts = [f"{bar.label} {bar.parts[0].tip}" for bar in bars]
    return rows(
        dtype,
        "",
        bars,
        lambda value: f"{value:g}",
        axis=unit,
        most=top / factor,
        alt=f"What a device achieves in {dtype}. {listed(parts)}.",
    )
