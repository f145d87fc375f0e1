"""How each number was made: rules, and what surrounded the records."""

from collections import Counter
from collections.abc import Sequence

from hpcgeo.records import MISSING, LinksRecord, Record, pairs
from hpcgeo_analysis.blocks import ReportBlock, Section, Study
from hpcgeo_analysis.tables import Table, text, whole, without_empty

#: Hosts named before the rest is counted.
HOSTS = 4


#: How the numbers of each kind came about.
RULES = {
    "measured": (
        "Measured: throughput is global batch over the median step.",
        "Of repeats it is the median of their medians; memory is the highest, on the worst rank.",
        "Whether ranks shared cores or a device is not recorded: hold devices against hosts.",
    ),
    "published": ("Published: as printed by the source, which also chose how to time steps.",),
    "predicted": ("Predicted: by arithmetic; no clock ran.",),
}
SPREAD = "A spread reaches from the lowest p10 to the highest p90 of the steps of all repeats."


def section(study: Study) -> Section:
    """Return the rules of the numbers, and the environments."""
    made = [*study.records, *study.links]
    rules = [rule for kind in RULES if any(m.kind == kind for m in made) for rule in RULES[kind]]
    if any(point.step_range for point in study.points):
        rules.append(SPREAD)
    rules.append("Commit, command and record of a point stand in its row of the table.")
    tables = [_environments(made)]
    return Section("made", "How each number was made", "", [ReportBlock("", rules, tables)])


def _environments(made: Sequence[Record | LinksRecord]) -> Table:
    """Return what surrounded the records, each surrounding once, and how many it holds."""
    found: Counter[tuple[str, ...]] = Counter()
    for record in made:
        found[
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
        ] += 1
    rows = [[whole(count), *map(text, values)] for values, count in found.items()]
    head = ["records", "kind", "machine", "device", "hosts", "versions", "driver", "environment"]
    head += ["commit", "tree", "source"]
    return without_empty(Table("Environments", head, rows), head[4:])


def _hosts(names: Sequence[str]) -> str:
    rest = len(names) - HOSTS
    if rest < 1:
        return ", ".join(names) or MISSING
    return f"{', '.join(names[:HOSTS])} and {rest} more ({len(names)} hosts)"
