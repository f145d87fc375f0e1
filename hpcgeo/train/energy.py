"""Energy of an interval, from whatever counter the machine offers; none is None, never zero.

The counters, by what is tried first:

  nvml         the total energy of each GPU of the job, in mJ (Volta and newer)
  amdsmi       the energy accumulator of each GPU of the job, in units of its own resolution. The
               two GCDs of an MI250X share a meter: one counts for both, the other stands still
  pm_counters  HPE Cray's counter of the whole node, in J
  rocm-smi     as amdsmi, of every GPU of the node
  rapl         packages and memory of the CPUs, in uJ, for jobs on CPUs

A scheduler's accounting is not among them: it samples the same counters, and says the sum of a step
when the step has ended.
"""

import json
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from hpcgeo.log import log
from hpcgeo.machines import Grid
from hpcgeo.measured import Energy
from hpcgeo.parallel.topology import Topology

#: Seconds between two looks at counters that wrap: the narrowest (2^32 units of 2^-16 J) does so
#: after one minute at 1 kW.
LOOK_S = 20.0


@dataclass(frozen=True)
class EnergyCounters:
    """Counters of energy that this rank can read.

    Attributes:
        what: what each of them counts, in the plural.
        read: returns the joules so far, by the name of the counter.
        ranges: joules at which a counter begins again, where that can happen.
        own: whether it counts the device of this rank alone, not the node.
    """

    name: str
    what: str
    read: Callable[[], dict[str, float]]
    ranges: dict[str, float] = field(default_factory=dict)
    own: bool = False


class Joules:
    """The energy of all hosts between `start` and `stop`; every rank calls both."""

    def __init__(self, topology: Topology) -> None:
        """Look for a counter."""
        self._topology = topology
        place = topology.places[topology.rank]
        self._host = place.host
        leads = all(
            other.local_rank >= place.local_rank
            for other in topology.places
            if other.host == place.host
        )
        self._source = find(topology.device, leads)
        if self._source is None and topology.device.type == "cuda" and topology.rank == 0:
            package = "amdsmi, which comes with ROCm" if torch.version.hip else "nvidia-ml-py"
            log.warning("no counter of energy can be read: it takes the package %s", package)
        self._stopped, self._thread = threading.Event(), threading.Thread()

    def start(self) -> None:
        """Begin to count, anew where it was begun before."""
        self.end()
        self._used: dict[str, float] = {}
        self._last: dict[str, float] = {}
        self._advance()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        if self._source and self._source.ranges:
            self._thread.start()

    def end(self) -> None:
        """Look at the counters no more."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def stop(self, images: int, grid: Grid | None = None) -> Energy | None:
        """Return the energy since `start`, the same on every rank.

        Args:
            images: that all ranks have trained on in that time.
            grid: where the power comes from.
        """
        self.end()
        self._advance()
        source = self._source
        kind = (source.name, source.what, source.own) if source else None
        mine = self._host, kind, self._used
        of_ranks: list[Any] = [None] * self._topology.world_size
        dist.all_gather_object(of_ranks, mine)
        return _together(of_ranks, images, grid)

    def _look(self) -> None:
        while not self._stopped.wait(LOOK_S):
            self._advance()

    def _advance(self) -> None:
        if self._source is None:
            return
        try:
            now = self._source.read()
        except Exception:  # each library of a vendor has its own
            self._source = None
            return
        for name, joules in now.items():
            used = joules - self._last.get(name, joules)
            if used < 0:
                used += self._source.ranges.get(name, 0.0)
            self._used[name] = self._used.get(name, 0.0) + used
        self._last = now


def find(device: torch.device, leads: bool) -> EnergyCounters | None:
    """Return the counters this rank is to read.

    Args:
        device: of this rank.
        leads: whether it is the first rank of its host, which reads those of the whole node.
    """
    if device.type == "cuda":
        own = _nvml(device) or _amdsmi(device)
        if own or not leads:
            return own
        return pm_counters() or _rocm_smi()
    return (pm_counters() or rapl()) if leads else None


def pm_counters(root: Path = Path("/sys/cray/pm_counters")) -> EnergyCounters | None:
    """Return the counter of an HPE Cray node, if this is one."""
    file = root / "energy"

    def read() -> dict[str, float]:
        return {"node": float(file.read_text().split()[0])}  # "83917452 J 1614780265361207 us"

    return _tried(EnergyCounters("pm_counters", "whole nodes", read))


def rapl(root: Path = Path("/sys/class/powercap")) -> EnergyCounters | None:
    """Return the counters of the CPUs, if they may be read: most systems keep them to root."""

    def read() -> dict[str, float]:
        return {zone.name: 1e-6 * int((zone / "energy_uj").read_text()) for zone in zones}

    def ranges() -> dict[str, float]:
        return {zone.name: 1e-6 * int((zone / "max_energy_range_uj").read_text()) for zone in zones}

    try:
        names = {  # so named on AMD, too
            zone: (zone / "name").read_text() for zone in sorted(root.glob("intel-rapl:*"))
        }
        zones = [zone for zone, name in names.items() if name.startswith(("package", "dram"))]
        dram = any(name.startswith("dram") for name in names.values())
        what = "CPU packages and memories" if dram else "CPU packages"
        return _tried(EnergyCounters("rapl", what, read, ranges()))
    except OSError:
        return None


def parse_rocm_smi(text: str) -> dict[str, float]:
    """Return joules by card from ``rocm-smi --showenergycounter --json``."""
    cards = json.loads(text)
    key = "Accumulated Energy (uJ)"
    return {card: 1e-6 * float(said[key]) for card, said in cards.items() if key in said}


def _rocm_smi() -> EnergyCounters | None:
    command = ["rocm-smi", "--showenergycounter", "--json"]

    def read() -> dict[str, float]:
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        return parse_rocm_smi(said.stdout)

    return _tried(EnergyCounters("rocm-smi", "GPUs", read))


def _nvml(device: torch.device) -> EnergyCounters | None:
    def read() -> dict[str, float]:
        nvml = import_module("pynvml")
        handle = torch.cuda._get_pynvml_handler(device)  # knows which devices are visible
        joules = 1e-3 * nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        return {str(nvml.nvmlDeviceGetUUID(handle)): joules}

    return _tried(EnergyCounters("nvml", "GPUs", read, own=True)) if torch.version.cuda else None


def _amdsmi(device: torch.device) -> EnergyCounters | None:
    def read() -> dict[str, float]:
        amdsmi = import_module("amdsmi")
        handle = torch.cuda._get_amdsmi_handler(device)
        said = amdsmi.amdsmi_get_energy_count(handle)
        count = said.get("energy_accumulator", said.get("power"))  # its name before ROCm 6.2.1
        joules = 1e-6 * count * said["counter_resolution"]
        return {str(amdsmi.amdsmi_get_gpu_device_bdf(handle)): joules}

    return _tried(EnergyCounters("amdsmi", "GPUs", read, own=True)) if torch.version.hip else None


def _tried(source: EnergyCounters) -> EnergyCounters | None:
    """Return a source that can be read; libraries of vendors fail in ways of their own."""
    try:
        return source if source.read() else None
    except Exception:
        return None


def _together(of_ranks: list[Any], images: int, grid: Grid | None) -> Energy | None:
    hosts = {host for host, _, _ in of_ranks}
    kinds = {kind for _, kind, _ in of_ranks if kind}
    if len(kinds) != 1:
        return None
    [(name, what, own)] = kinds
    read = [host for host, kind, _ in of_ranks if kind]
    if set(read) != hosts or (own and len(read) < len(of_ranks)):
        return None
    used = {(host, counter): joules for host, _, by in of_ranks for counter, joules in by.items()}
    joules = sum(used.values())
    if joules <= 0:
        return None  # counters that stand still measure nothing
    nodes = "1 node" if len(hosts) == 1 else f"{len(hosts)} nodes"
    return Energy(
        source=name,
        covers=f"{what} of {nodes} ({len(used)} counters), with all that ran on them",
        joules=joules,
        images=images,
        grid_g_per_kwh=grid.g_per_kwh.value if grid else None,
        grid_source=f"{grid.title}: {grid.g_per_kwh.source}" if grid else None,
    )
