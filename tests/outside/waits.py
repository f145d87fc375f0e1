"""A section of the report: which part of a step devices wait for data."""

from hpcgeo_analysis.blocks import ReportBlock, Section
from hpcgeo_analysis.formatting import percent


def section(study):
    """Return a sentence for every point whose phases were measured."""
    phases = [(point, point.first.phases) for point in study.points if point.first.phases]
    said = [f"{study.called(point)}: {percent(p.data_wait_s / p.step_s)}." for point, p in phases]
    return Section("waits", "Waiting for data", "Of a step.", [ReportBlock("", said)])
