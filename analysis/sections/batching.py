"""Samples of unequal length: real tokens per second, and what padding costs of time and memory."""

from collections.abc import Sequence

from hpcgeo_analysis import charts
from hpcgeo_analysis.blocks import ReportBlock, Section, Study
from hpcgeo_analysis.charts import Bar
from hpcgeo_analysis.comparisons import Comparison, Scaled
from hpcgeo_analysis.formatting import counted, gib, percent, rate, span, times
from hpcgeo_analysis.plots import CAUSES, REST, Plot
from hpcgeo_analysis.points import StudyPoint
from hpcgeo_analysis.sections.scaling import file_name
from hpcgeo_analysis.tables import Table, line, number, valued, whole, without_constant

PARTS = (("tokens", CAUSES[0][0]), ("padding", REST[0]))


def section(study: Study) -> Section:
    """Return tokens per second, padding and memory of every comparison of mixtures."""
    blocks = []
    for comparison in study.once:
        known = [scaled for scaled in comparison.scaled if scaled.point.tokens_per_s]
        if known:
            plots = _plots(comparison, known) if comparison.number in study.plotted else []
            blocks.append(ReportBlock(comparison.title, sentences(known), plots, [_table(known)]))
    intro = (
        "Tokens are those of the samples; padding is what is computed beside them, as a part of "
        "both, of the micro-batches of all ranks."
    )
    missing = "Not measured: no record holds tokens per second, which runs on mixtures have."
    return Section("batching", "Batching", intro if blocks else "", blocks, missing)


def sentences(known: Sequence[Scaled]) -> list[str]:
    """Return who computes most tokens on the most devices with a rival, and who pads most."""
    counts = sorted({scaled.point.devices for scaled in known}, reverse=True)
    rows = [[s for s in known if s.point.devices == count] for count in counts]
    row = next((row for row in rows if len(row) > 1), rows[0])
    ordered = sorted(row, key=lambda scaled: -_rate(scaled))
    best, last = ordered[0], ordered[-1]
    found = [
        f"On {counted(best.point.devices, 'device')} {best.name} computes "
        f"{rate(_rate(best))} tokens a second"
    ]
    if best is not last:
        tied = [other.name for other in ordered[1:] if _tied(best.point, other.point)]
        found[0] += f", the most of the {len(row)} measured; {last.name} {rate(_rate(last))}"
        found[0] += f", the least ({times(_rate(best) / _rate(last))})"
        if tied:
            found.append(f"Within the spread of {best.name}: {', '.join(tied)}.")
    found[0] += "."
    most = max(row, key=lambda scaled: padding(scaled.point) or 0.0)
    if share := padding(most.point):
        found.append(f"Up to {percent(share)} of what is computed is padding: {most.name}.")
    return found


def padding(point: StudyPoint) -> float | None:
    """Return the fraction of what is computed that is padding."""
    return point.median(lambda record: record.padding)


def activations(point: StudyPoint) -> int | None:
    """Return the bytes of activations at the peak."""
    return point.memory.activations_bytes if point.memory else None


def _rate(scaled: Scaled) -> float:
    return scaled.point.tokens_per_s or 0.0


def _tied(best: StudyPoint, other: StudyPoint) -> bool:
    if best.tokens_range is None or other.tokens_range is None:
        return False
    return other.tokens_range[1] >= best.tokens_range[0]


def _plots(comparison: Comparison, known: Sequence[Scaled]) -> list[Plot]:
    chosen = charts.some(known)
    if len(chosen) < 2:
        return []
    bars = []
    for scaled in chosen:
        point, share = scaled.point, padding(scaled.point) or 0.0
        parts = [_rate(scaled), _rate(scaled) * share / (1 - share)]
        label = f"{scaled.line} · {point.devices:,}"
        bars.append(Bar(label, parts, bool(point.mark), point.tokens_range))
    below = comparison.subtitle
    if len(chosen) < len(known):
        below += ". Smallest, middle and largest number of devices"
    name, title = f"tokens-{file_name(comparison)}", f"Tokens: {comparison.title}"
    axis = "a second, all devices; a thin line: p10 to p90 of tokens"
    return [charts.stacked(name, title, below, bars, PARTS, axis)]


def _table(known: Sequence[Scaled]) -> Table:
    rows = []
    for scaled in known:
        point = scaled.point
        low, high = point.tokens_range or (None, None)
        each = _rate(scaled) / point.devices
        rows.append(
            [
                line(scaled),
                whole(point.devices),
                valued(rate, _rate(scaled)),
                number(span(low, high), low),
                valued(rate, each),
                valued(percent, padding(point)),
                valued(gib, activations(point)),
                valued(gib, point.memory_bytes),
                whole(point.first.micro_batch),
            ]
        )
    head = ["strategy", "devices", "tokens/s", "p10 to p90", "tokens/s per device", "padding"]
    head += ["activations (GiB)", "peak (GiB)", "micro-batch"]
    return without_constant(Table("Tokens per second and padding", head, rows), ("micro-batch",))
