"""What is read from a trace: of a host, and of a device whose kernels all have the same name."""

import json
from pathlib import Path
from typing import Any

import pytest

from hpcgeo.profiling.trace import read, read_apart


def event(category: str, name: str, begin: float, length: float, **arguments: Any) -> Any:
    return {
        "ph": "X",
        "cat": category,
        "name": name,
        "ts": begin,
        "dur": length,
        "args": arguments,
    }


def trace(path: Path, *events: Any) -> Path:
    file = path / "trace.json"
    file.write_text(json.dumps({"traceEvents": [{"ph": "M", "name": "process_name"}, *events]}))
    return file


STEPS = [
    event("user_annotation", "hpcgeo:step", -2000, 1500),  # the trace starts in it
    event("user_annotation", "hpcgeo:step", 0, 1000),
    event("user_annotation", "hpcgeo:step", 2000, 500),
    event("user_annotation", "hpcgeo:data_wait", 0, 100),
    event("user_annotation", "hpcgeo:forward", 100, 300),
]


def test_host(tmp_path: Path) -> None:
    steps = read(
        trace(
            tmp_path,
            *STEPS,
            event("cpu_op", "aten::stack", 50, 20),  # while reading: part of the wait for data
            event("cpu_op", "aten::linear", 100, 200),
            event("cpu_op", "aten::addmm", 110, 100),  # inside the one above
            event("cpu_op", "c10d::_allgather_base_", 350, 600),  # started, or waited for: no work
            event("cpu_op", "autograd::engine::evaluate_function: AddmmBackward0", 0, 1000),
            event("user_annotation", "gloo:all_gather", 250, 300),
            event("user_annotation", "FSDP::all_gather (0)", 0, 1000),
            event("cpu_op", "aten::mm", 1500, 100),  # between steps
            event("user_annotation", "gloo:all_reduce", 2400, 50),
        ),
        on_device=False,
    )
    assert steps.total == pytest.approx([1e-3, 5e-4])
    activity = {name: value[0] * 1e6 for name, value in steps.activity.items()}
    assert activity == pytest.approx(
        {
            "data_wait": 100,
            "compute": 200,
            "exposed_comm": 250,
            "host_to_device_copy": 0,
            "idle": 450,
        }
    )
    assert steps.comm == pytest.approx([300e-6, 50e-6])
    assert steps.calls.tolist() == [1, 1]


def test_device(tmp_path: Path) -> None:
    generic = "ncclDevKernel_Generic(ncclDevKernelArgsStorage<4096ul>)"
    steps = read(
        trace(
            tmp_path,
            *STEPS[:4],
            event("cpu_op", "aten::linear", 100, 900),  # only started from here
            event("gpu_memcpy", "Memcpy HtoD (Pinned -> Device)", 50, 50),
            event("kernel", "Cijk_Ailk_Bljk", 200, 300),
            event("kernel", generic, 400, 200, **{"Collective name": "_allgather_base"}),
            event("cpu_op", "record_param_comms", 600, 5, **{"External id": 7}),
            event("kernel", generic, 700, 100, **{"External id": 7}),
            event("kernel", generic, 850, 50, **{"External id": 8}),  # a kernel like any other
        ),
        on_device=True,
    )
    activity = {name: value[0] * 1e6 for name, value in steps.activity.items()}
    assert activity == pytest.approx(
        {
            "compute": 350,
            "exposed_comm": 200,
            "host_to_device_copy": 50,
            "data_wait": 50,
            "idle": 350,
        }
    )
    assert steps.comm[0] == pytest.approx(300e-6)
    assert steps.calls.tolist() == [2, 0]


def test_a_trace_without_its_device_is_no_trace_of_the_host(tmp_path: Path) -> None:
    file = trace(tmp_path, *STEPS, event("cpu_op", "aten::linear", 100, 200))
    with pytest.raises(ValueError, match="nothing that ran on the device"):
        read_apart(file, on_device=True)
    apart, here = read_apart(file, on_device=False), read(file, on_device=False)
    assert apart.total.tolist() == here.total.tolist()
    assert {name: value.tolist() for name, value in apart.activity.items()} == {
        name: value.tolist() for name, value in here.activity.items()
    }


def test_a_torn_trace_says_so(tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    file.write_text('{"traceEvents": [')
    with pytest.raises(ValueError, match="JSONDecodeError"):
        read_apart(file, on_device=False)
