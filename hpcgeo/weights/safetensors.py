"""The safetensors format, written tensor by tensor: a header of names and places, then the values.

Source: https://github.com/huggingface/safetensors#format
"""

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from hpcgeo.errors import InputError

#: Name of a data type in a header.
TYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


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
        file.write(_header(shapes, dtype, metadata))
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


def _header(
    shapes: Mapping[str, torch.Size], dtype: torch.dtype, metadata: Mapping[str, str]
) -> bytes:
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + math.prod(shape) * dtype.itemsize
        entries[name] = {
            "dtype": TYPES[dtype],
            "shape": list(shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)  # values begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text
