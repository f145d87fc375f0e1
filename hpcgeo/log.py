"""What a run says: one logger that knows its rank, and a progress bar where someone is looking."""

import logging
import sys
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from time import monotonic
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from hpcgeo.quoting import terminal

log = logging.getLogger("hpcgeo")
Item = TypeVar("Item")
#: Between the lines that say how far work is, where no terminal draws it.
LINE_EVERY_S, FIRST_LINE_S = 60.0, 10.0


def set_up(rank: int = 0, host: str = "") -> None:
    """Send log lines to standard error: information from rank 0, warnings from every rank."""
    where = f"rank {rank} on {host}: " if rank else ""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Plain(f"%(asctime)s {where}%(message)s", "%H:%M:%S"))
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    log.propagate = False


class _Plain(logging.Formatter):
    """Names in a message come from anyone: the terminal shows them, and does not obey them."""

    def format(self, record: logging.LogRecord) -> str:
        return terminal(super().format(record))


@contextmanager
def bar(description: str, total: int | None, *, shown: bool = True) -> Iterator[Progress]:
    """Yield a rich progress bar with one task; it draws only on a terminal, and where `shown`.

    Update it with ``progress.update(progress.task_ids[0], advance=1, detail="...")``.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, disable=not (shown and console.is_terminal)
    ) as progress:
        progress.add_task(description, total=total, detail="")
        yield progress


def track(
    items: Iterable[Item], description: str, total: int | None = None, *, shown: bool = True
) -> Iterator[Item]:
    """Yield `items` behind a progress bar, where `shown`; a file gets a line after ten seconds, and
    one a minute, instead."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    begun = monotonic()
    said = begun + FIRST_LINE_S - LINE_EVERY_S
    with bar(description, total, shown=shown) as progress:
        for done, item in enumerate(items, 1):
            yield item
            progress.update(progress.task_ids[0], advance=1)
            if shown and progress.disable and (now := monotonic()) - said >= LINE_EVERY_S:
                said, left = now, ""
                if total is not None:
                    left = f" of {total}, {span((total - done) * (now - begun) / done)} left"
                log.info("%s: %d%s", description, done, left)


def span(seconds: float) -> str:
    """Return a time in the unit that fits.

    >>> span(8), span(100), span(9000), span(400_000)
    ('8 s', '2 min', '2.5 h', '4.6 days')
    """
    for unit, size in (("days", 86400), ("h", 3600)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
