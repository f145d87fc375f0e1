"""The device of a run against what it was told; a GPU is make-believe here: a name and a count."""

from types import SimpleNamespace

import pytest
import torch

from hpcgeo.errors import InputError
from hpcgeo.launch.environment import Environment
from hpcgeo.machines import device_of, machine
from hpcgeo.parallel.device import name_of
from hpcgeo.parallel.topology import RankPlace, Topology
from hpcgeo.strategies import Layout, strategy
from hpcgeo.train.device import hold_to, mention

ALONE = Environment(0, 1, 0, 1, "desk", "single")


def on(monkeypatch: pytest.MonkeyPatch, name: str, count: int = 1) -> Topology:
    """Return the topology of one rank on a device of that name."""
    properties = SimpleNamespace(gcnArchName="gfx90a:sramecc+:xnack-")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    place, device = (RankPlace("desk", 0, 0),), torch.device("cuda", 0)
    model = device_of(name_of(device))
    return Topology(0, device, strategy("DDP"), Layout(1, 1, 1), (0,), place, model)


def said(caplog: pytest.LogCaptureFixture, topology: Topology, where: str, dtype: str) -> list[str]:
    caplog.clear()
    mention(ALONE, machine(where), topology, dtype)
    return [record.message for record in caplog.records]


def test_a_machine_with_devices_is_not_computed_on_its_cpus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    hold_to(machine("local"))
    with pytest.raises(InputError, match=r"^frontier has MI250X devices, and torch .* sees none: "):
        hold_to(machine("frontier"))
    on(monkeypatch, "AMD Instinct MI250X")
    hold_to(machine("frontier"))


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("NVIDIA GeForce RTX 5090", "NVIDIA GeForce RTX 5090"),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "NVIDIA A100-SXM4-40GB MIG 1g.5gb"),
        ("", "AMD gfx90a"),
    ],
)
def test_an_unknown_device_is_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, called: str
) -> None:
    topology = on(monkeypatch, name)
    assert topology.model is None
    [line] = said(caplog, topology, "local", "bfloat16")
    assert line.startswith(f"device {called!r}: its peak in bfloat16 is not known: ")
    assert "launch.machine=PATH.yaml" in line and "hpcgeo.devices" in line


def test_what_is_known_needs_no_word(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert said(caplog, on(monkeypatch, "NVIDIA L40S"), "local", "bfloat16") == []
    [line] = said(caplog, on(monkeypatch, "Tesla V100-SXM2-16GB"), "local", "bfloat16")
    assert "its peak in bfloat16 is not known" in line and "package" not in line


def test_devices_left_idle_and_another_device_are_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    [idle] = said(caplog, on(monkeypatch, "NVIDIA H100 80GB HBM3", 8), "local", "float32")
    assert "drives 1 of 8 devices; `torchrun --nproc-per-node 8 --no-python hpcgeo" in idle
    [other] = said(caplog, on(monkeypatch, "NVIDIA H100 80GB HBM3"), "frontier", "float32")
    assert other == "frontier has MI250X devices, this is NVIDIA H100 80GB HBM3"
