"""Where the time of a step goes: compute, exposed communication, copies, data, idle."""

from collections.abc import Sequence

from hpcgeo.records import SOFT, Record
from hpcgeo_analysis import charts
from hpcgeo_analysis.blocks import ReportBlock, Section, Study
from hpcgeo_analysis.blocks import name as named
from hpcgeo_analysis.charts import Bar
from hpcgeo_analysis.comparisons import Comparison, Scaled
from hpcgeo_analysis.formatting import counted, listed, percent, seconds
from hpcgeo_analysis.plots import CAUSES, REST, Plot
from hpcgeo_analysis.points import CONTEXT, StudyPoint
from hpcgeo_analysis.sections.scaling import file_name
from hpcgeo_analysis.separation import merged
from hpcgeo_analysis.tables import Table, layout, line, number, text, valued, whole, without_empty

#: Causes of time in a traced step, with their colours; together they are the step.
ACTIVITY = {
    "compute_s": ("compute", CAUSES[0][0]),
    "exposed_comm_s": ("exposed communication", CAUSES[1][0]),
    "host_to_device_s": ("host to device", CAUSES[3][0]),
    "data_wait_s": ("data", CAUSES[5][0]),
    "idle_s": ("idle", REST[0]),
}
PHASES = {
    "step_s": "mean rank's step",
    "data_wait_s": "data wait",
    "augmentation_s": "augmentation",
    "collate_s": "collate",
    "host_to_device_s": "host to device",
    "forward_s": "forward",
    "backward_s": "backward",
    "optimizer_s": "optimizer",
    "other_s": "other",
}
WITHIN = "within the spread"
#: Shares of a step from which a cause is worth a sentence.
WORTH = {"exposed_comm_s": 0.05, "data_wait_s": 0.05, "host_to_device_s": 0.05, "idle_s": 0.10}


def section(study: Study) -> Section:
    """Return stacked steps, phases, and what switching off communication or data saves."""
    blocks = []
    for comparison in study.once:
        traced = [s for s in comparison.scaled if s.point.typical("activity")]
        plots = _plots(comparison, traced) if comparison.number in study.plotted else []
        tables = [_activity(traced)] if traced else []
        tables += [table for table in [_phases(comparison)] if table]
        sentences = [*_causes(traced), *_untraced(comparison, traced)]
        blocks.append(ReportBlock(comparison.title, sentences, plots, tables))
    blocks.append(decomposition(study.points))
    return Section("steps", "Where the time of a step goes", "", [b for b in blocks if not b.empty])


def _plots(comparison: Comparison, traced: Sequence[Scaled]) -> list[Plot]:
    chosen = charts.some(traced)
    if len(chosen) < 2:
        return []
    spent = [(scaled, scaled.point.typical("activity") or {}) for scaled in chosen]
    causes = list(ACTIVITY.values())
    absolute, share = [], []
    scale, unit = (1, "seconds") if max(times["step_s"] for _, times in spent) > 1 else (1000, "ms")
    for scaled, times in spent:
        label = f"{scaled.line} · {scaled.point.devices:,}"
        parts = [times[key] for key in ACTIVITY]
        absolute.append(Bar(label, [scale * part for part in parts], bool(scaled.point.mark)))
        share.append(Bar(label, [100 * p / sum(parts) for p in parts], bool(scaled.point.mark)))
    name, below = file_name(comparison), comparison.subtitle
    if len(chosen) < len(traced):
        below += ". Smallest, middle and largest number of devices"
    title = f"A step: {comparison.title}"
    return [
        charts.stacked(f"step-{name}", title, below, absolute, causes, f"{unit} of a step"),
        charts.stacked(f"share-{name}", title, below, share, causes, "percent of a step"),
    ]


def _activity(traced: Sequence[Scaled]) -> Table:
    rows = []
    for scaled in traced:
        times = scaled.point.typical("activity") or {}
        row = [line(scaled), whole(scaled.point.devices), valued(seconds, times["step_s"])]
        for key in ACTIVITY:
            share = times[key] / times["step_s"] if times["step_s"] else None
            row.append(number(f"{seconds(times[key])} ({percent(share)})", times[key]))
        row.append(valued(seconds, times["comm_s"]))
        rows.append(row)
    names = [name for name, _ in ACTIVITY.values()]
    head = ["strategy", "devices", "traced step", *names, "communication, hidden too"]
    return Table("What a device does in a traced step, mean of ranks", head, rows)


def _phases(comparison: Comparison) -> Table | None:
    rows = []
    for scaled in comparison.scaled:
        point = scaled.point
        wait = point.median(lambda record: record.data_wait_s)
        phases = point.typical("phases") or ({} if wait is None else {"data_wait_s": wait})
        comm = point.median(lambda record: record.comm_s)
        if comm is None and not phases:
            continue
        row = [line(scaled), whole(point.devices), valued(seconds, point.step_s)]
        row += [valued(seconds, phases.get(key)) for key in PHASES]
        share = comm / point.step_s if comm is not None and point.step_s else None
        rows.append([*row, valued(seconds, comm), valued(percent, share)])
    head = ["strategy", "devices", "step", *PHASES.values(), "collectives run", "of the step"]
    if not rows:
        return None
    caption = (
        "Phases of a step, which sum to that of the mean rank, of the repeat with the median step; "
        "step is of the slowest rank, collectives may overlap with compute"
    )
    return without_empty(Table(caption, head, rows), head[3:])


def _causes(traced: Sequence[Scaled]) -> list[str]:
    """Return for each cause where it takes most of a step, where that is worth a sentence."""
    sentences = []
    for key, least in WORTH.items():
        shares = []
        for scaled in traced:
            times = scaled.point.typical("activity") or {}
            if times["step_s"]:
                shares.append((times[key] / times["step_s"], scaled))
        if not shares:
            continue
        share, worst = max(shares, key=lambda pair: pair[0])
        if share >= least:
            what = ACTIVITY[key][0]
            sentence = f"{what[0].upper()}{what[1:]} takes up to {percent(share)} of a step: "
            sentence += f"{worst.name} on {counted(worst.point.devices, 'device')}"
            low = min(shares, key=lambda pair: pair[0])
            if low[0] < share:
                sentence += (
                    f"; least is {percent(low[0])}, {low[1].name} on {low[1].point.devices:,}"
                )
            sentences.append(f"{sentence}.")
    return sentences


def _untraced(comparison: Comparison, traced: Sequence[Scaled]) -> list[str]:
    """Return what the bookkeeping of points without a trace says."""
    sentences = []
    for what, of, least in (
        ("Waiting for data takes", _data_wait, 0.05),
        ("Collectives run during", _comm, 0.10),
    ):
        shares = []
        for scaled in comparison.scaled:
            part, step = scaled.point.median(of), scaled.point.step_s
            if scaled not in traced and part is not None and step:
                shares.append((part / step, scaled))
        share, worst = max(shares, key=lambda pair: pair[0], default=(0.0, None))
        if worst is not None and share >= least:
            low = min(share for share, _ in shares)
            least_words = f" (least anywhere: {percent(low)})" if low < share else ""
            sentences.append(
                f"{what} up to {percent(share)} of a step: {worst.name} on "
                f"{counted(worst.point.devices, 'device')}{least_words}."
            )
    return sentences


def _data_wait(record: Record) -> float | None:
    return record.phases.data_wait_s if record.phases else record.data_wait_s


def _comm(record: Record) -> float | None:
    return record.comm_s


def decomposition(points: Sequence[StudyPoint]) -> ReportBlock:
    """Return what pairs of points show that differ in communication alone, or in data alone."""
    rows, sentences = [], []
    for name, plain, without, what in (
        ("communication", "on", "off", "communication"),
        ("data", "shards", "cached", "reading"),
    ):
        pairs = _pairs(points, name, plain, without)
        shares = []
        for whole_step, bare in pairs:
            assert whole_step.step_s and bare.step_s
            saved = whole_step.step_s - bare.step_s
            apart = _apart(whole_step, bare)
            if apart != WITHIN:
                shares.append((saved / whole_step.step_s, named(whole_step, bare)))
            marks = listed(sorted({*whole_step.marks, *bare.marks}))
            rows.append(
                [
                    text(f"{what}"),
                    text(whole_step.first.model),
                    layout(whole_step),
                    whole(whole_step.devices),
                    whole(whole_step.first.micro_batch),
                    valued(seconds, whole_step.step_s),
                    valued(seconds, bare.step_s),
                    number(seconds(saved) if saved >= 0 else f"-{seconds(-saved)}", saved),
                    number(_signed(saved / whole_step.step_s), saved / whole_step.step_s),
                    text(", ".join([apart, *([marks] if marks else [])]), "noisy" if marks else ""),
                ]
            )
        clear = [pair for pair in shares if pair[0] > 0]
        if clear:
            share, worst = max(clear, key=lambda pair: pair[0])
            verb = "Communication that hurts is" if what == "communication" else "Reading is"
            sentences.append(
                f"{verb} up to {percent(share)} of a step ({worst}), by the step with "
                f"{name} {without} in {counted(len(pairs), 'pair')}."
            )
        elif pairs:
            sentences.append(
                f"A step with {name} {without} is not shorter beyond the spread in "
                f"{counted(len(pairs), 'pair')}: no {what} that hurts is claimed."
            )
    head = ["what", "model", "strategy", "devices", "micro-batch", "step", "step without it"]
    head += ["difference", "of the step", "told apart"]
    caption = "Pairs of points that differ in communication alone, or in data alone"
    tables = [Table(caption, head, rows)] if rows else []
    return ReportBlock("Decomposition", sentences, tables=tables)


def _pairs(
    points: Sequence[StudyPoint], name: str, plain: str, without: str
) -> list[tuple[StudyPoint, StudyPoint]]:
    place = CONTEXT.index(name)
    sides: dict[tuple[object, ...], dict[str, StudyPoint]] = {}
    for point in points:
        record = point.first
        rest = merged(point.context, (name, *SOFT))
        sizes = (record.world_size, record.nodes, record.micro_batch, record.accumulate)
        if point.step_s:
            sides.setdefault((rest, point.layout, *sizes), {})[point.context[place]] = point
    return [(pair[plain], pair[without]) for pair in sides.values() if {plain, without} <= {*pair}]


def _apart(first: StudyPoint, second: StudyPoint) -> str:
    if first.step_range is None or second.step_range is None:
        return "no spread given"
    (low, high), (other_low, other_high) = first.step_range, second.step_range
    return WITHIN if low <= other_high and other_low <= high else "beyond the spread"


def _signed(share: float) -> str:
    return percent(share) if share >= 0 else f"-{percent(-share)}"
