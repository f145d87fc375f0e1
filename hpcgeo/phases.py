"""Phases of a step: the code that works says which phase it is in; whoever measures may watch."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

#: What is entered at the beginning of a phase and left at its end.
Watch = Callable[[str], AbstractContextManager[None]]

#: In the order of a step; what is in none of them is `other`. One inside another is no part of it.
PHASES = (
    *("data_wait", "augmentation", "collate", "host_to_device"),
    *("forward", "teacher", "backward", "optimizer"),
)

_watching: list[Watch] = []


def phase(name: str) -> AbstractContextManager[None]:
    """Return the context in which a phase runs; it does nothing where nobody watches."""
    return _watching[-1](name) if _watching else nullcontext()


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Have `watch` see the phases of this process for a while."""
    _watching.append(watch)
    try:
        yield
    finally:
        _watching.pop()
