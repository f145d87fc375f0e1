"""What a rank drives: torch's name of it, its row in the tables, and no other rank drives it."""

import os
from collections.abc import Mapping

import torch
from torch._C._distributed_c10d import Store

from hpcgeo.errors import InputError
from hpcgeo.machines import Device, device_of

#: What launchers and schedulers say to each rank about the devices it sees.
VISIBLE = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")


def name_of(device: torch.device) -> str:
    """Return torch's name of a GPU; its architecture where ROCm finds no list of names."""
    if name := torch.cuda.get_device_name(device):
        return name
    architecture = torch.cuda.get_device_properties(device).gcnArchName
    return f"AMD {architecture.partition(':')[0]}"


def row_of(device: torch.device, own: Mapping[str, Device]) -> Device | None:
    """Return the row of a device; None: a host, or a GPU that nobody knows.

    Args:
        device: of this rank.
        own: rows of the machine.
    """
    return device_of(name_of(device), own) if device.type == "cuda" else None


def identity(device: torch.device) -> str:
    """Return what is the same for two ranks of a host that drive one device; nothing: not known.

    Drivers give an identifier to a device, some of AMD's to all partitions of one: with it goes by
    which number this rank sees it.
    """
    known = str(getattr(torch.cuda.get_device_properties(device), "uuid", ""))
    if not known.strip("0-"):
        return ""
    seen = [os.environ.get(name, "") for name in VISIBLE]
    return " ".join([known, str(device.index), *seen])


def refuse_shared(
    store: Store, rank: int, world_size: int, host: str, device: torch.device
) -> None:
    """Compare the devices of all ranks, before NCCL does; every rank calls it.

    Args:
        store: of all ranks.
        rank, host, device: this one's.

    Raises:
        InputError: two ranks drive one device.
    """
    store.set(f"device/{rank}", f"{host} {mine}" if (mine := identity(device)) else "")
    if rank == 0:
        taken: dict[bytes, int] = {}
        both = ""
        for other, own in enumerate(store.multi_get([f"device/{n}" for n in range(world_size)])):
            first = taken.setdefault(own, other) if own else other
            if first != other and not both:
                both = f"{first} and {other} on {own.decode().partition(' ')[0]}"
        store.set("shared device", both)
    if both := store.get("shared device").decode():
        error = InputError(
            f"ranks {both} drive one and the same device, {name_of(device)}: start one rank a "
            f"device, or show each rank its own (CUDA_VISIBLE_DEVICES, srun --gpus-per-task=1)"
        )
        error.shared = True
        raise error


def usable_device() -> torch.device:
    """Return the accelerator of this process; the CPU where torch is for one that is not there."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
