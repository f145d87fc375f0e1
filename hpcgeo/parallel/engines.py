"""Which engine a strategy needs: the one place that asks for the backend."""

from collections.abc import Callable

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
