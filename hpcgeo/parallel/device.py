"""What a rank drives: torch's name of it, and its row in the tables."""

from collections.abc import Mapping

import torch

from hpcgeo.machines import Device, device_of


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
