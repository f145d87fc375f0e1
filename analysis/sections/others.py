"""Fields of records that no other section shows: each as it was recorded."""

from hpcgeo_analysis.blocks import ReportBlock, Section, Study
from hpcgeo_analysis.points import declared, median_of
from hpcgeo_analysis.tables import Table, TableCell, layout, text, whole


def section(study: Study) -> Section:
    """Return a table of every declared plain field of no section, where a point has one."""
    head = ["model", "strategy", "devices", "micro-batch"]
    declares = declared(study.records[0]) if study.records else {}
    columns = [shown for shown in declares.values() if shown.section == "other" and shown.plain]
    table = []
    for point in study.points:
        values = [median_of(point, shown.name) for shown in columns]
        if any(value is not None for value in values):
            record = point.first
            sizes = [whole(point.devices), whole(record.micro_batch)]
            table.append([text(record.model), layout(point), *sizes, *map(_cell, values)])
    head += [f"{one.label}, {one.unit}" if one.unit else one.label for one in columns]
    kept = [n for n in range(len(head)) if n < 4 or any(row[n].text for row in table)]
    rows = [[row[n] for n in kept] for row in table]
    tables = [Table("Fields that no section above shows", [head[n] for n in kept], rows)]
    blocks = [ReportBlock("", (), tables)] if rows else []
    return Section("others", "Other fields", "", blocks, "")


def _cell(value: object) -> TableCell:
    if isinstance(value, float):
        return TableCell(f"{value:.4g}", value)
    return text("" if value is None else str(value))
