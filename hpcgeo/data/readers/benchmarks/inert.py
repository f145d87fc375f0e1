"""What a pickle says, read without running anything that it names.

Each class or function that it names becomes a `Named`, which remembers its arguments and state and
does nothing. So a file of anyone can be read: what is not plain values stays inert.
"""

import io
import pickle
import re
from typing import Any

import numpy as np

from hpcgeo.errors import InputError

#: Of a pickle that is read; those of metadata have a few kilobytes.
MOST_BYTES = 64 * 2**20
#: Types of numbers that are decoded.
_NUMBERS = re.compile(r"[|<>=]?[?biuf]\d{0,2}")


class Named(dict[Any, Any]):
    """An object of a class that was not loaded.

    Attributes:
        of: module and name of the class, or of the function that would have made it.
        args: what it would have been called with.
        state: what it would have been given as its state.
    """

    of: str = ""
    args: tuple[Any, ...] = ()
    state: Any = None

    def __new__(cls, *args: Any, **_: Any) -> "Named":
        """Remember the arguments."""
        made = super().__new__(cls)
        made.args = args
        return made

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __call__(self, *args: Any, **_: Any) -> "Named":
        """Make nothing of what a method would have made."""
        return type(self)(*args)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    @property
    def fields(self) -> dict[str, Any]:
        """The attributes that it would have."""
        return self.state if isinstance(self.state, dict) else {}


class _Reader(pickle.Unpickler):
    """An unpickler to which every class is a `Named`."""

    def find_class(self, module: str, name: str) -> Any:
        return type("Named", (Named,), {"of": f"{module}.{name}"})

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("a reference to something outside")


def inert(data: bytes) -> Any:
    """Return the values of a pickle; objects are `Named`, numbers of NumPy are decoded.

    Raises:
        InputError: it is too long, or no pickle.
    """
    if len(data) > MOST_BYTES:
        raise InputError(f"a pickle of {len(data)} bytes: at most {MOST_BYTES} are read")
    try:
        return _decoded(_Reader(io.BytesIO(data)).load())
    except InputError:
        raise
    except Exception as error:  # a damaged pickle raises what it likes
        raise InputError(f"a pickle that cannot be read: {error}") from None


def _decoded(value: Any) -> Any:
    """Return a value with the numbers and arrays of NumPy in it; all else stays as it is."""
    if isinstance(value, Named):
        if value.of.endswith("multiarray.scalar") and len(value.args) == 2:
            return np.frombuffer(_bytes(value.args[1]), _dtype(value.args[0]))[0]
        if value.of.endswith("multiarray._reconstruct") and isinstance(value.state, tuple):
            _, shape, dtype, columns_first, data = value.state
            kind = _dtype(dtype)
            flat = np.frombuffer(_bytes(data), kind)
            return flat.reshape(shape, order="F" if columns_first else "C")
        if value.of.endswith("numeric._frombuffer") and len(value.args) == 4:
            data, dtype, shape, order = value.args
            return np.frombuffer(_bytes(data), _dtype(dtype)).reshape(shape, order=order)
        return value
    if type(value) is dict:
        return {key: _decoded(each) for key, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_decoded, value))
    return value


def _dtype(named: Any) -> np.dtype[Any]:
    text = named.args[0] if isinstance(named, Named) and named.args else ""
    if not isinstance(text, str) or not _NUMBERS.fullmatch(text):
        raise InputError(f"an array of {text!r}: numbers alone are read")
    state = named.state if isinstance(named.state, tuple) else ()
    return np.dtype(text).newbyteorder(">" if state[1:2] == (">",) else "<")


def _bytes(value: Any) -> bytes:
    """Return bytes, which old protocols write as text in Latin-1."""
    if isinstance(value, Named) and value.args and isinstance(value.args[0], str):
        return value.args[0].encode("latin-1")
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    raise InputError("an array without its bytes")
