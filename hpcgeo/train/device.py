"""The device of a run against what it was told: the machine's, all of them, known to the tables."""

import torch

from hpcgeo.errors import InputError
from hpcgeo.launch.environment import Environment
from hpcgeo.log import log
from hpcgeo.machines import DEVICES, Machine
from hpcgeo.parallel.device import name_of
from hpcgeo.parallel.topology import Topology


def hold_to(where: Machine) -> None:
    """Refuse to compute on the CPUs of a machine that has devices: one seldom means to.

    Raises:
        InputError: torch sees no device.
    """
    if where.device and not torch.cuda.is_available():
        raise InputError(
            f"{where.name} has {where.device} devices, and torch {torch.__version__} sees none: "
            f"install the wheel for them (https://pytorch.org/get-started/locally), ask for them "
            f"where the job starts, or leave the machine out to compute on CPUs"
        )


def mention(environment: Environment, where: Machine, topology: Topology, dtype: str) -> None:
    """Say what the devices have that the run does not use, or that nobody knows of them."""
    if topology.device.type == "cpu" or environment.rank:
        return
    count, model = torch.cuda.device_count(), topology.model
    if environment.world_size == 1 < count and not environment.idle:
        log.warning(
            "one process drives 1 of %d devices; `torchrun --nproc-per-node %d --no-python hpcgeo "
            "train ...` drives all",
            *(count, count),
        )
    name = name_of(topology.device)
    if model and where.device and model.name != where.device:
        log.warning("%s has %s devices, this is %s", where.name, where.device, name)
    if model is None or model.peak(dtype) is None:
        log.warning(
            "device %r: its peak in %s is not known: no utilisation in the record (hpcgeo profile "
            "holds it against a measured matrix product)%s; a row for it stands under `devices:` "
            "of a YAML file (launch.machine=PATH.yaml), or is an entry point of %s",
            *(name, dtype, "" if model else ", and each is taken for a package", DEVICES),
        )
