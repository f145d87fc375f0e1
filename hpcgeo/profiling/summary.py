"""A record in a few lines, for whoever just measured it."""

from collections.abc import Mapping

from hpcgeo.records import Record

#: Collectives named in a summary.
SHOWN = 3


def summary(record: Record) -> str:
    """Return what a record says of its step; every line is there only where it was measured."""
    assert record.step_s is not None
    step = record.step_s
    lines = [
        f"{record.layout} on {record.world_size}: {record.images_per_s:.4g} "
        f"{'samples' if record.mixed else 'images'}/s, "
        f"step {_ms(step.median)} (p10 {_ms(step.p10)}, p90 {_ms(step.p90)}"
        f"{', noisy' if record.noisy else ''})"
    ]
    if record.tokens_per_s and record.padding is not None:
        tokens = record.tokens_per_s
        lines.append(
            f"{tokens.median:,.0f} tokens/s (p10 {tokens.p10:,.0f}, p90 {tokens.p90:,.0f}); "
            f"{record.padding:.1%} is padding"
        )
    if record.phases:
        phases = record.phases.model_dump()
        lines.append(f"phases: {_shares(phases, phases.pop('step_s'))}")
    if record.activity:
        activity = record.activity.model_dump(exclude={"comm_s"})
        lines.append(f"device, traced steps: {_shares(activity, activity.pop('step_s'))}")
    if record.comm_s and record.world_size > 1:
        first = [
            f"{t.calls:g} {t.collective} of {t.message_bytes:,} bytes over {t.group} ({t.ranks})"
            for t in record.traffic[:SHOWN]
        ]
        more = ", ..." if len(record.traffic) > SHOWN else ""
        lines.append(f"communication {_ms(record.comm_s)} a step: {', '.join(first)}{more}")
    if record.wait and record.wait.straggler is not None and record.wait.late_s:
        others = (record.wait.late_ranks or 1) - 1
        also = f" and {others} more" if others else ""
        lines.append(
            f"straggler: others wait {_ms(record.wait.late_s)} a step for rank "
            f"{record.wait.straggler} on {record.wait.host}{also}"
        )
    if record.mfu:
        lines.append(f"MFU {record.mfu:.1%} of a {record.peak_source} peak")
    return "\n  ".join(lines)


def _shares(seconds: Mapping[str, float], whole: float) -> str:
    parts = sorted(seconds.items(), key=lambda part: -part[1])
    named = [
        f"{name.removesuffix('_s').replace('_', ' ')} {value / whole:.1%}" for name, value in parts
    ]
    return ", ".join(named)


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
