"""Energy: counters as files, recorded output, wrap-around, and None where nothing is measured."""

import json
import sys
from functools import partial
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import pytest
import torch

from hpcgeo.machines import grid
from hpcgeo.measured import Energy
from hpcgeo.train import energy
from hpcgeo.train.energy import EnergyCounters, Joules, find, parse_rocm_smi, pm_counters, rapl
from tests.distributed import on_ranks
from tests.parallel.training import build

CPU = torch.device("cpu")
GPU = torch.device("cuda", 0)

#: What a node with MI250 said to ``rocm-smi -a --json`` (wandb's tests, shortened).
RECORDED = {
    "card0": {
        "Average Graphics Package Power (W)": "89.0",
        "PCI Bus": "0000:2F:00.0",
        "Energy counter": "62929744071539",
        "Accumulated Energy (uJ)": "962825096297442.9",
    },
    "card1": {"PCI Bus": "0000:32:00.0"},
    "system": {"Driver version": "6.2.4"},
}


def zone(root: Path, number: str, name: str, joules: float, range_joules: float = 262143.328850):
    folder = root / f"intel-rapl:{number}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(f"{round(joules * 1e6)}\n")
    (folder / "max_energy_range_uj").write_text(f"{round(range_joules * 1e6)}\n")


def test_rapl_counts_packages_and_memory_once(tmp_path: Path) -> None:
    zone(tmp_path, "0", "package-0", 100)
    zone(tmp_path, "0:0", "core", 60)  # part of its package
    zone(tmp_path, "0:1", "dram", 10)
    zone(tmp_path, "1", "psys", 500)  # the packages, and more
    source = rapl(tmp_path)
    assert source is not None and source.what == "CPU packages and memories"
    assert source.read() == {"intel-rapl:0": 100, "intel-rapl:0:1": 10}
    assert source.ranges["intel-rapl:0"] == pytest.approx(262143.32885)


def test_no_counters_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rapl(tmp_path) is None
    assert rapl(tmp_path / "none") is None
    zone(tmp_path, "0", "package-0", 100)
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()  # as unreadable as for a common user
    assert rapl(tmp_path) is None
    assert pm_counters(tmp_path) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find(GPU, leads=True) is None
    assert find(CPU, leads=False) is None


def test_pm_counters(tmp_path: Path) -> None:
    (tmp_path / "energy").write_text("83917452 J 1614780265361207 us\n")
    source = pm_counters(tmp_path)
    assert source is not None and source.read() == {"node": 83917452.0}


def test_rocm_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_rocm_smi(json.dumps(RECORDED)) == {"card0": pytest.approx(962825096.2974429)}
    program = tmp_path / "rocm-smi"
    program.write_text(f"#!/bin/sh\nexec /bin/cat <<'END'\n{json.dumps(RECORDED)}\nEND\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    source = find(GPU, leads=True)
    assert source is not None and source.name == "rocm-smi" and not source.own
    assert source.read() == {"card0": pytest.approx(962825096.2974429)}
    assert find(GPU, leads=False) is None


def test_vendors_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVML counts millijoules; amdsmi its own units, and named them otherwise before ROCm 6.2.1."""
    nvml = SimpleNamespace(
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: 5000 + handle,
        nvmlDeviceGetUUID=lambda handle: f"GPU-{handle}",
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "_get_pynvml_handler", lambda device: 3)
    source = find(GPU, leads=False)
    assert source is not None and source.own and source.read() == {"GPU-3": 5.003}

    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", "6.4")
    monkeypatch.setattr(torch.cuda, "_get_amdsmi_handler", lambda device: 0)
    for name in ("energy_accumulator", "power"):
        said = {name: 62929744071539, "counter_resolution": 15.3}
        smi = SimpleNamespace(
            amdsmi_get_energy_count=lambda handle, said=said: said,
            amdsmi_get_gpu_device_bdf=lambda handle: "0000:2f:00.0",
        )
        monkeypatch.setitem(sys.modules, "amdsmi", smi)
        source = find(GPU, leads=False)
        assert source is not None and source.name == "amdsmi"
        assert source.read() == {"0000:2f:00.0": pytest.approx(962825084.29)}


#: What each of two ranks of a host reads, where its counter begins again, whether it counts the
#: rank's own device; and the joules.
CASES: list[tuple[list[list[float] | None], dict[str, float], bool, float | None]] = [
    ([[100, 130], [7, 12]], {}, True, 35),
    ([[100, 130], None], {}, False, 30),  # of the node, read by its first rank
    ([[100, 130], [100, 131]], {}, False, 31),  # of the node: one of the two, not the sum
    ([[90, 20], None], {"node": 100}, False, 30),  # begun again
    ([[100, 130], [7, 7]], {}, True, 30),  # the other half of a package
    ([[100, 130], None], {}, True, None),  # a device whose meter cannot be read
    ([[100, 130], [7]], {}, True, None),  # nor at the end
    ([[100, 100], [7, 7]], {}, True, None),  # that stands still
    ([None, None], {}, True, None),
]


def measured() -> list[Energy | None]:
    """Return what two ranks of one host make of the readings of each."""
    _, topology = build({"strategy": "DDP"})
    answers = []
    for steps, ranges, own, _ in CASES:
        readings, source = steps[topology.rank], None
        if readings is not None:
            name, values = f"gpu{topology.rank}" if own else "node", iter(readings)
            read = partial(lambda name, values: {name: next(values)}, name, values)
            source = EnergyCounters("meter", "things", read, ranges, own)
        energy.find = lambda device, leads, source=source: source
        joules = Joules(topology)
        joules.start()
        answers.append(joules.stop(images=10, grid=grid("finland")))
    return answers


def test_joules() -> None:
    first, second = on_ranks(measured, 2)
    assert first == second
    assert [found and found.joules for found in first] == [joules for *_, joules in CASES]
    assert first[0].joules_per_image == 3.5 and first[0].grid_g_per_kwh == 79
    assert first[0].covers == "things of 1 node (2 counters), with all that ran on them"


def here() -> Energy | None:
    _, topology = build({"strategy": "DDP"})
    joules = Joules(topology)
    joules.start()
    torch.randn(512, 512) @ torch.randn(512, 512)
    return joules.stop(images=1)


def test_this_machine() -> None:
    """It says what it has: its own counter, or nothing; never zero."""
    [found] = on_ranks(here, 1)
    source = find(CPU, leads=True)
    assert found is None if source is None else found is None or found.source == source.name
    assert found is None or found.joules > 0


def looked_at() -> float:
    """Return what is counted of a counter that goes around several times."""
    _, topology = build({"strategy": "DDP"})
    values, seen = iter([0, *[40, 80, 20, 60, 0] * 3]), Event()

    def read() -> dict[str, float]:
        value = next(values, None)
        if value is None:
            seen.set()
        return {"a": float(value or 0)}

    energy.LOOK_S = 0.001
    energy.find = lambda device, leads: EnergyCounters("meter", "things", read, {"a": 100.0})
    joules = Joules(topology)
    joules.start()
    assert seen.wait(60)
    answer = joules.stop(images=1)
    assert answer is not None
    return answer.joules


def test_a_counter_that_wraps_is_looked_at_in_between() -> None:
    """Of six times around, begin and end alone would tell none."""
    assert on_ranks(looked_at, 1) == [600]
