"""What a trace of PyTorch's profiler says a rank did: the second path to the same figures.

Read from the file that Perfetto opens. Collectives are recognised by what the process group
recorded: gloo's annotations, or on a device the arguments of a kernel (or of the record it was
launched from); never by the name of a kernel, which on ROCm may be the same for all.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hpcgeo.phases import PHASES

#: In front of the annotations that we make ourselves.
OURS = "hpcgeo:"
STEP = f"{OURS}step"

#: What a kernel knows of the collective it belongs to.
MARK = "Collective name"

#: Categories of what runs on a device.
DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")

#: Host operators that are no compute: they start collectives, wait for them, or wrap others.
NO_COMPUTE = ("c10d::", "_c10d_functional::", "autograd::", "record_param_comms", "Python")

Spans = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Steps:
    """Seconds of each traced step, (S,) each.

    Attributes:
        total: from begin to end.
        activity: what ran, by name; disjoint, and with idle they sum to `total`.
        phases: the same time by phase, from annotations.
        comm: a collective ran, compute beside it or not.
        calls: collectives.
    """

    total: Spans
    activity: dict[str, Spans]
    phases: dict[str, Spans]
    comm: Spans
    calls: Spans


def read(path: Path) -> Steps:
    """Return what a trace says of its steps.

    Args:
        path: Chrome trace in JSON, with a span ``hpcgeo:step`` for each step.
    """
    spans = _sorted_out(json.loads(path.read_bytes())["traceEvents"])
    windows = spans["step"]
    seconds = {name: _seconds(spans[name], windows) for name in PHASES}
    # On a device what runs is seen, on a host what was called: there reading calls operators too.
    parts = ["compute", "exposed_comm", "host_to_device_copy", "data_wait"]
    if not len(spans["device"]):
        parts = ["data_wait", *parts[:-1]]
    sources = {**spans, "exposed_comm": spans["comm"]}
    activity, taken = {}, np.zeros(len(windows))
    for place, part in enumerate(parts):
        before = np.concatenate([sources[name] for name in parts[: place + 1]])
        upto = _seconds(before, windows)
        activity[part] = upto - taken
        taken = upto
    total = windows[:, 1] - windows[:, 0]
    activity["idle"] = total - taken
    inside = (spans["comm"][:, :1] < windows[:, 1]) & (spans["comm"][:, 1:] > windows[:, 0])
    return Steps(
        total=total * 1e-6,
        activity={name: value * 1e-6 for name, value in activity.items()},
        phases={name: value * 1e-6 for name, value in seconds.items()},
        comm=_seconds(spans["comm"], windows) * 1e-6,
        calls=inside.sum(axis=0).astype(float),
    )


def _sorted_out(events: Iterable[Mapping[str, Any]]) -> dict[str, Spans]:
    """Return begin and end, (N, 2) in microseconds, of what the figures need."""
    events = [event for event in events if event.get("ph") == "X"]
    recorded = {
        event["args"]["External id"]
        for event in events
        if event["name"] == "record_param_comms" and "External id" in event.get("args", {})
    }
    on_device = any(event.get("cat") in DEVICE for event in events)
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for event in events:
        kind = _kind(event, on_device, recorded)
        if kind:
            span = (event["ts"], event["ts"] + event["dur"])
            found[kind].append(span)
            if event.get("cat") in DEVICE:
                found["device"].append(span)
    names = ("step", "compute", "comm", "host_to_device_copy", "device", *PHASES)
    return {name: np.array(found[name], dtype=float).reshape(-1, 2) for name in names}


def _kind(event: Mapping[str, Any], on_device: bool, recorded: set[Any]) -> str | None:
    name, category, arguments = event["name"], event.get("cat"), event.get("args", {})
    if category == "user_annotation":
        if name.startswith(OURS):
            return str(name.removeprefix(OURS))
        return "comm" if name.startswith("gloo:") else None
    if category == "gpu_memcpy":
        direction = name.lower().replace(" ", "")
        return "host_to_device_copy" if "htod" in direction or "hosttod" in direction else "compute"
    if category in DEVICE:
        collective = MARK in arguments or arguments.get("External id") in recorded
        return "comm" if collective else "compute"
    if category == "cpu_op" and not on_device and not name.startswith(NO_COMPUTE):
        return "compute" if "::" in name else None
    return None


def _seconds(spans: Spans, windows: Spans) -> Spans:
    """Return the time inside each window in which at least one span runs."""
    if not len(spans):
        return np.zeros(len(windows))
    spans = spans[np.argsort(spans[:, 0])]
    reach = np.maximum.accumulate(spans[:, 1])
    begin = np.maximum(spans[:, 0], np.concatenate([[-np.inf], reach[:-1]]))
    begin, end = begin[begin < reach], reach[begin < reach]
    parts = np.minimum(end[:, None], windows[:, 1]) - np.maximum(begin[:, None], windows[:, 0])
    return np.asarray(np.maximum(parts, 0.0).sum(axis=0))
