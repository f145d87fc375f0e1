"""A safetensors file, written tensor by tensor."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from hpcgeo.checkpoint.safetensors import header
from hpcgeo.errors import InputError


def write(
    path: Path,
    shapes: Mapping[str, torch.Size],
    dtype: torch.dtype,
    tensors: Iterable[tuple[str, Tensor]],
    metadata: Mapping[str, str],
) -> int:
    """Write a file and flush it to disk; one tensor at a time is in memory.

    Args:
        shapes: what the file will hold, in its order.
        dtype: of the values in the file.
        tensors: names and values, in the order of `shapes`.
        metadata: words about the file.

    Returns:
        the size of the file in bytes.

    Raises:
        InputError: a value is not finite in that data type.
        OSError: the file cannot be written.
    """
    with path.open("wb") as file:
        file.write(header({name: (dtype, shape) for name, shape in shapes.items()}, metadata))
        for (name, shape), (given, tensor) in zip(shapes.items(), tensors, strict=True):
            assert (name, shape) == (given, tensor.shape), (name, shape, given, tensor.shape)
            values = tensor.to(dtype).contiguous()
            if not values.isfinite().all():
                raise InputError(
                    f"{name} is not finite in {dtype}: choose another data type or step"
                )
            file.write(values.view(torch.uint8).numpy().data)
        file.flush()
        os.fsync(file.fileno())
        return file.tell()
