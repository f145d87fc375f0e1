"""How much of a device's peak a point uses, where the peak has a source."""

from dataclasses import dataclass
from statistics import median

from hpcgeo_analysis.comparisons import Scaled
from hpcgeo_analysis.points import StudyPoint


@dataclass(frozen=True)
class Use:
    """What a device of a point achieves: FLOP/s of the mathematics, and their share of its peak."""

    scaled: Scaled
    flops_per_s: float
    mfu: float
    peak_flops_per_s: float
    peak_source: str


def use(scaled: Scaled) -> Use | None:
    """Return what a point achieves, where its MFU may be shown."""
    share, known, achieved = mfu(scaled.point), peak(scaled.point), flops_per_s(scaled.point)
    if share is None or known is None or achieved is None:
        return None
    return Use(scaled, achieved, share, *known)


def flops_per_s(point: StudyPoint) -> float | None:
    """Return the FLOP/s of the mathematics of one device."""
    flops, images = point.median(lambda record: record.model_flops), point.images_per_s
    return flops * images / point.first.global_batch / point.devices if flops and images else None


def mfu(point: StudyPoint, name: str = "mfu") -> float | None:
    """Return MFU (or ``hfu``) where the peak has one source and every repeat is possible."""
    known = peak(point)
    if known is None:
        return None
    shares = [
        getattr(record, name) * record.peak_flops_per_s / known[0]
        for record in point.records
        if getattr(record, name) and record.peak_flops_per_s
    ]
    return median(shares) if shares and max(shares) <= 1 else None


def peak(point: StudyPoint) -> tuple[float, str] | None:
    """Return the peak of a device and its source, where repeats agree.

    One that was measured is the highest of the study: what shares cores measures a lower one.
    """
    source = point.same(lambda record: record.peak_source)
    value = point.same(lambda record: record.peak_flops_per_s)
    if source == "measured":
        value = point.measured_peak
    return (value, source) if value and source else None
