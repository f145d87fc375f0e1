"""Which engine a strategy needs: the one place that asks for the backend; and what engines need."""

import os
import shutil
from collections.abc import Callable

import torch

from hpcgeo.errors import InputError
from hpcgeo.parallel.engine import Engine
from hpcgeo.parallel.native import NativeEngine
from hpcgeo.strategies import Strategy


def engine_of(strategy: Strategy) -> Callable[..., Engine]:
    """Return the class of the engine that spreads by a strategy.

    Raises:
        InputError: its package is not installed.
    """
    if strategy.backend == "native":
        return NativeEngine
    from hpcgeo.parallel.deepspeed import DeepSpeedEngine

    engine: Callable[..., Engine] = DeepSpeedEngine
    return engine


def refuse_uncompiled() -> None:
    """Refuse `parallel.compile` where torch.compile finds no compiler.

    Raises:
        InputError: there is none on PATH, and the variable that may name one does not.
    """
    on_device = torch.cuda.is_available()
    variable = "CC" if on_device else "CXX"
    usual = ("gcc", "clang", "cc") if on_device else ("g++",)
    named = os.environ.get(variable)
    known = [named.split()[0]] if named and named.strip() else usual
    if not any(map(shutil.which, known)):
        raise InputError(
            f"parallel.compile needs a compiler, and {' or '.join(known)} is not on PATH: load its "
            f"module, name it in {variable}, or set parallel.compile=false"
        )
