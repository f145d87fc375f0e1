"""Machines and devices: the documented figures, a source for each, and no guess for the unknown."""

import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from hpcgeo.errors import InputError
from hpcgeo.machines import Fact, device_of, devices, grid, grids, machine, machines

NAMES = [
    *("cuda-node", "frontier", "jupiter", "juwels-booster"),
    *("local", "lumi-g", "perlmutter", "polaris"),
]


def test_all_are_there():
    assert list(machines()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_has_a_source_and_every_line_a_reason(name):
    row = machine(name)
    for figure, fact in row.facts():
        assert fact.source in row.sources, figure
    for line in [*row.directives, *row.modules, *row.launcher, *row.environment, *row.settings]:
        assert len(line.reason) > 10, line
    assert row.device is None or row.device in devices()
    own = [bin_.nodes for bin_ in row.bins if not bin_.options]
    assert own == sorted(own)
    assert {bin_.source for bin_ in row.bins} <= set(row.sources)


def test_frontier_as_documented():
    row = machine("frontier")
    assert (row.nodes.value, row.devices_per_node.value, row.cores_per_device.value) == (9856, 8, 7)
    assert (row.links.package.value, row.links.node.value, row.links.out.value) == (200, 50, 100)
    assert [row.hours(nodes) for nodes in (1, 91, 92, 183, 184, 9472)] == [2, 2, 6, 6, 12, 12]
    with pytest.raises(InputError, match="9473 nodes are more than a job on frontier may have"):
        row.hours(9473)
    assert str(row.bin(64, 3)) == "24 h to 64 nodes with --partition=extended"
    assert not any(fact.verify for _, fact in row.facts())


def test_lumi_binds_in_the_order_of_its_devices():
    """The mask of GCD 0 is cores 49-55, of GCD 4 cores 1-7 (LUMI AI guide)."""
    [line] = machine("lumi-g").launcher
    masks = [int(mask, 16) for mask in line.text.split("mask_cpu:")[1].split(",")]
    cores = [[core for core in range(64) if mask >> core & 1] for mask in masks]
    assert [own[0] for own in cores] == [49, 57, 17, 25, 1, 9, 33, 41]
    assert all(len(own) == 7 for own in cores)


def test_polaris_binds_in_the_order_of_its_devices() -> None:
    """Device 0 hangs on cores 24-31, device 3 on 0-7 (ALCF user guide)."""
    [line] = machine("polaris").launcher
    assert line.text.split()[-1] == "list:24-31:16-23:8-15:0-7"
    path = next(v for v in machine("polaris").environment if v.text.startswith("LD_LIBRARY_PATH"))
    assert "/soft/libraries/aws-ofi-nccl/" in path.text and ":$LD_LIBRARY_PATH" in path.text


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name not in ("cuda-node", "local", "polaris")]
)
def test_gloo_and_nccl_meet_on_the_fast_network(name: str) -> None:
    """Checkpoints are agreed on over gloo: by default it takes the interface of the host's name."""
    names = {line.text.partition("=")[0] for line in machine(name).environment}
    assert {"NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"} <= names


def test_a_device_is_a_gcd():
    gcd = devices()["MI250X"]
    assert gcd.peak("bfloat16") == 191.5e12
    assert gcd.memory_bytes == 64 * 2**30
    assert gcd.bandwidth == 1.6


@pytest.mark.parametrize(
    ("spoken", "name"),
    [
        ("AMD Instinct MI210", "MI210"),
        ("AMD Instinct MI250", "MI250"),
        ("AMD Instinct MI250X", "MI250X"),
        ("AMD Instinct MI250X / MI250", "MI250-or-MI250X"),
        ("AMD Instinct MI300A", "MI300A"),
        ("AMD Instinct MI300X", "MI300X"),
        ("Tesla V100-SXM2-16GB", "V100"),
        ("Tesla V100-PCIE-32GB", "V100-PCIe"),
        ("NVIDIA A100-SXM4-40GB", "A100-40"),
        ("NVIDIA A100-PCIE-40GB", "A100-40"),
        ("NVIDIA A100-SXM-64GB", "A100-64"),
        ("NVIDIA A100 80GB PCIe", "A100-80-PCIe"),
        ("NVIDIA A100-SXM4-80GB", "A100-80"),
        ("NVIDIA GeForce RTX 4090", "RTX-4090"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA H100 PCIe", "H100-PCIe"),
        ("NVIDIA H100 NVL", "H100-NVL"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA H200 NVL", "H200-NVL"),
        ("NVIDIA GH200 480GB", "GH200"),
        ("NVIDIA GH200 120GB", "GH200"),
        ("NVIDIA GH200 144G HBM3e", "GH200-144"),
        ("NVIDIA B200", "B200"),
    ],
)
def test_devices_are_known_by_torch_s_name(spoken, name):
    row = device_of(spoken)
    assert row is not None and row.name == name
    assert [other.name for other in devices().values() if re.fullmatch(other.pattern, spoken)] == [
        name
    ]


@pytest.mark.parametrize(
    "spoken",
    [
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "NVIDIA H200 MIG 1g.18gb",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA L40",
        "AMD gfx90a",
        "",
    ],
)
def test_a_sister_a_slice_or_a_stranger_has_no_row(spoken):
    assert device_of(spoken) is None


def test_a_peak_may_not_be_known():
    assert devices()["H100"].peak("float8") is None
    assert devices()["V100"].peak("bfloat16") is None
    assert devices()["MI250-or-MI250X"].peak("bfloat16") is None


def test_devices_are_plausible():
    for row in devices().values():
        assert row.source
        low = row.peak("bfloat16") or row.peak("float16")
        assert low is None or 1 < low / row.peak("float32") <= 30
        assert 0.3 <= row.bandwidth < 10


def test_an_unknown_machine():
    with pytest.raises(InputError, match=r"did you mean 'frontier'\?"):
        machine("frontiers")


def test_grids():
    assert grid("tva").g_per_kwh.value == pytest.approx(624.94 * 0.45359237, abs=0.1)
    assert all(0 < row.g_per_kwh.value < 1000 for row in grids().values())
    assert {row.grid for row in machines().values()} <= {None, *grids()}
    with pytest.raises(InputError, match=r"unknown grid 'finnland' \(did you mean 'finland'\?\)"):
        grid("finnland")


def test_a_figure_without_a_source_is_refused():
    with pytest.raises(ValidationError):
        Fact.model_validate([5])
    with pytest.raises(ValidationError):
        Fact.model_validate([5, "guide", "sure"])


def test_no_torch():
    program = "import sys, hpcgeo.machines as m; m.machines(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_a_machine_of_the_users_own(tmp_path: Path) -> None:
    file = tmp_path / "desk.yaml"
    file.write_text(
        "title: A desk\nsources: {none: seen}\ndevices_per_node: [2, none]\nscheduler: slurm\n"
    )
    assert machine(str(file)).name == "desk" and machine(str(file)).devices_per_node.value == 2
    for text, message in (
        ("[]", "keys and values"),
        ("{title: x", "not YAML"),
        ("title: x", "devices_per_node"),
        ("modules: [{text: rocm, reason: it}]", "modules"),
    ):
        other = tmp_path / f"{message.replace(' ', '')}.yaml"
        other.write_text(text)
        with pytest.raises(InputError, match=f"^machine {other}.*{message}|{message}"):
            machine(str(other))
    with pytest.raises(InputError, match=r"missing\.yaml: No such file"):
        machine(str(tmp_path / "missing.yaml"))


def test_a_device_of_the_users_own(tmp_path: Path) -> None:
    """It comes before ours, so that a wrong row of ours can be corrected."""
    file = tmp_path / "desk.yaml"
    card = "{title: x, flops: {bfloat16: 1}, memory: 8, bandwidth: 1, pattern: %s, source: seen}"
    text = (
        "title: A desk\nsources: {none: seen}\ndevices_per_node: [2, none]\nscheduler: slurm\n"
        f"device: mine\ndevices: {{mine: {card}}}\n"
    )
    file.write_text(text % "NVIDIA (H200|X1)")
    own = machine(str(file)).devices
    for spoken in ("NVIDIA X1", "NVIDIA H200"):
        row = device_of(spoken, own)
        assert row is not None and (row.name, row.peak("bfloat16")) == ("mine", 1e12)
    other = tmp_path / "other.yaml"
    other.write_text(text % "'('")
    with pytest.raises(InputError, match="is no regular expression"):
        machine(str(other))


def test_a_machine_knows_its_device(tmp_path: Path) -> None:
    """Also one of the user's own; a name that is none is refused with the known ones."""
    path = tmp_path / "mine.yaml"
    text = (files("hpcgeo.facts.machines") / "cuda-node.yaml").read_text()
    named = re.sub(r"(?m)^device: .*$", "device: card", text)
    assert named != text
    path.write_text(named)
    with pytest.raises(InputError, match=r"device 'card' is no row of `devices`; known: .*H100"):
        machine(str(path))
    row = {"title": "Card", "memory": 8, "bandwidth": 1, "pattern": "Card", "source": "none"}
    path.write_text(named + yaml.safe_dump({"devices": {"card": row}}))
    model = machine(str(path)).model
    assert model is not None and model.memory == 8
