"""How each number was made: environments, and of every point its steps, commits and commands."""

from collections.abc import Sequence

from hpcgeo.records import MISSING, LinksRecord, Record, pairs
from hpcgeo_analysis.blocks import ReportBlock, Section, Study
from hpcgeo_analysis.formatting import NOT_MEASURED, seconds
from hpcgeo_analysis.points import StudyPoint
from hpcgeo_analysis.tables import (
    Table,
    TableCell,
    layout,
    number,
    text,
    whole,
    without_constant,
    without_empty,
)

#: Hosts named before the rest is counted.
HOSTS = 4


#: How the numbers of each kind came about.
RULES = {
    "measured": "throughput is global batch over the median step, of all devices; of repeats, the "
    "median of their medians. Where the time of a step goes is said of one repeat, that with the "
    "median step. Memory is the highest of the repeats, on the worst rank.",
    "published": "as printed by the source named below; how steps were timed is the source's.",
    "predicted": "by arithmetic; no clock ran.",
}
SPREADS = (
    "The spread reaches from the lowest p10 to the highest p90 of the step times of all repeats; "
    "two points whose spreads overlap are within noise of each other.",
    "The range of an efficiency combines the spreads of both runs.",
)


def section(study: Study) -> Section:
    """Return the rules of the numbers, the environments, and one row for each point."""
    kinds = [kind for kind in RULES if any(made.kind == kind for made in study.records)]
    rules = [f"{kind.capitalize()}: {RULES[kind]}" for kind in kinds]
    if any(point.step_range for point in study.points):
        rules += SPREADS
    if "measured" in kinds:
        rules.append(
            "Whether ranks shared cores or a device is not recorded: hold devices against device "
            "text and hosts below."
        )
    tables, used = _environments([*study.records, *study.links])
    made = [_points(study, used)] if study.points else []
    return Section(
        "made", "How each number was made", "", [ReportBlock("", rules, (), [*tables, *made])]
    )


def _environments(made: Sequence[Record | LinksRecord]) -> tuple[list[Table], dict[int, str]]:
    """Return what surrounded the records, each surrounding once, and the name of each record's."""
    names: dict[tuple[str, ...], str] = {}
    used = {}
    for record in made:
        values = (
            record.kind,
            record.machine,
            record.device,
            _hosts(sorted(set(record.hosts))),
            pairs(record.versions),
            record.driver or MISSING,
            pairs(record.environment),
            record.commit or MISSING,
            {None: MISSING, True: "uncommitted changes", False: "clean"}[record.dirty],
            record.source or MISSING,
        )
        used[id(record)] = names.setdefault(values, f"E{len(names) + 1}")
    rows = [[text(name), *(text(value) for value in values)] for values, name in names.items()]
    head = ["name", "kind", "machine", "device", "hosts", "versions", "driver", "environment"]
    head += ["commit", "tree", "source"]
    if not rows:
        return [], used
    return [without_empty(Table("Environments", head, rows), head[4:])], used


def _points(study: Study, used: dict[int, str]) -> Table:
    head = ["model", "strategy", "devices", "setting", "micro-batch", "made in"]
    head += [
        "steps: warm-up + measured",
        "step: p10 / median / p90",
        "runs",
        "last made",
        "command",
    ]
    rows = []
    for point in study.points:
        record = point.first
        step: TableCell = number(NOT_MEASURED, None)
        if point.step_range:
            low, high = point.step_range
            words = " / ".join(seconds(value) for value in (low, point.step_s, high))
            step = number(words, point.step_s)
        commands = list(dict.fromkeys(point.all(lambda record: record.command)))
        rows.append(
            [
                text(record.model),
                layout(point),
                whole(point.devices),
                text(study.setting(point), "line"),
                whole(record.micro_batch),
                text(", ".join(dict.fromkeys(used[id(each)] for each in point.records))),
                text(_steps(point)),
                step,
                whole(len(point.records)),
                text(_last_made(point)),
                TableCell("; ".join(commands) or MISSING, "; ".join(commands), "code"),
            ]
        )
    table = Table("One row per point; click a column to sort", head, rows)
    table = without_empty(table, head[6:])
    return without_constant(table, ("setting", "micro-batch", "runs"))


def _last_made(point: StudyPoint) -> str:
    """Return when; a published point's date is that of its transcription."""
    if point.first.kind == "published":
        return MISSING
    return max(record.created for record in point.records)


def _steps(point: StudyPoint) -> str:
    record = point.first
    warmup = MISSING if record.warmup_steps is None else f"{record.warmup_steps:,}"
    values = record.step_s.values if record.step_s else []
    return f"{warmup} + {len(values):,}" if values else f"{warmup} + {MISSING}"


def _hosts(names: Sequence[str]) -> str:
    rest = len(names) - HOSTS
    if rest < 1:
        return ", ".join(names) or MISSING
    return f"{', '.join(names[:HOSTS])} and {rest} more ({len(names)} hosts)"
