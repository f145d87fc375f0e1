"""What a trace of PyTorch's profiler says a rank did: the second path to the same figures.

Read from the file that Perfetto opens. Collectives are recognised by what the process group
recorded: gloo's annotations, or on a device the arguments of a kernel (or of the record it was
launched from); never by the name of a kernel, which on ROCm may be the same for all.
"""

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

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
        comm: a collective ran, compute beside it or not.
        calls: collectives.
    """

    total: Spans
    activity: dict[str, Spans]
    comm: Spans
    calls: Spans


def read(path: Path, on_device: bool) -> Steps:
    """Return what a trace says of its steps but the first, which also started the trace.

    Args:
        path: Chrome trace in JSON, with a span ``hpcgeo:step`` for each step.
        on_device: whether a device was to be traced, or the host itself.

    Raises:
        ValueError: a device was to be traced, and nothing of it is there.
    """
    spans = _sorted_out(json.loads(path.read_bytes())["traceEvents"], on_device)
    windows = spans["step"][1:]
    if on_device and not len(spans["device"]):
        raise ValueError("the trace holds nothing that ran on the device")
    # On a device what runs is seen, on a host what was called: there reading calls operators too.
    parts = ["compute", "exposed_comm", "host_to_device_copy", "data_wait"]
    if not on_device:
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
        comm=_seconds(spans["comm"], windows) * 1e-6,
        calls=inside.sum(axis=0).astype(float),
    )


def read_apart(path: Path, on_device: bool) -> Steps:
    """Do the same in a process of its own: a large file would hold Python's lock for long.

    Raises:
        ValueError: it cannot be read.
    """
    command = [sys.executable, __file__, str(path), *(["device"] if on_device else [])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ValueError((done.stderr.strip().splitlines() or ["no word of why"])[-1])
    said = json.loads(done.stdout)
    activity = {name: np.array(value) for name, value in said.pop("activity").items()}
    return Steps(activity=activity, **{name: np.array(value) for name, value in said.items()})


def _sorted_out(events: Iterable[Mapping[str, Any]], on_device: bool) -> dict[str, Spans]:
    """Return begin and end, (N, 2) in microseconds, of what the figures need."""
    events = [event for event in events if event.get("ph") == "X"]
    recorded = {
        event["args"]["External id"]
        for event in events
        if event["name"] == "record_param_comms" and "External id" in event.get("args", {})
    }
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for event in events:
        kind = _kind(event, on_device, recorded)
        if kind:
            span = (event["ts"], event["ts"] + event["dur"])
            found[kind].append(span)
            if event.get("cat") in DEVICE:
                found["device"].append(span)
    names = ("step", "compute", "comm", "host_to_device_copy", "device", "data_wait")
    return {name: np.array(found[name], dtype=float).reshape(-1, 2) for name in names}


def _kind(event: Mapping[str, Any], on_device: bool, recorded: set[Any]) -> str | None:
    name, category, arguments = event["name"], event.get("cat"), event.get("args", {})
    if category == "user_annotation":
        if name.startswith(OURS):
            return str(name.removeprefix(OURS))
        return "comm" if name.startswith("gloo:") else None
    if category in DEVICE:
        if MARK in arguments or arguments.get("External id") in recorded:
            return "comm"
        direction = name.lower().replace(" ", "") if category == "gpu_memcpy" else ""
        copies = "htod" in direction or "hosttod" in direction
        return "host_to_device_copy" if copies else "compute"
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


if __name__ == "__main__":
    print(json.dumps(asdict(read(Path(sys.argv[1]), "device" in sys.argv)), default=list))
