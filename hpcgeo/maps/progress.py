"""How far a map is: a bar on a terminal, else a line in the log now and then."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import Progress

from hpcgeo.log import bar, log, span

#: Seconds between lines of the log.
EVERY_S = 30.0


class Pace:
    """Tiles done of one scene by this rank, and what is left."""

    def __init__(self, name: str, tiles: int, pixels_of_tile: int, progress: Progress) -> None:
        """Begin at once."""
        self._name, self._tiles, self._pixels = name, tiles, pixels_of_tile
        self._progress, self._done = progress, 0
        self._begun = self._said = time.monotonic()

    def __call__(self, tiles: int) -> None:
        """Count tiles."""
        self._done += tiles
        now = time.monotonic()
        rate = self._done / max(now - self._begun, 1e-6)
        left = span(max(0, self._tiles - self._done) / rate)
        words = f"{rate * self._pixels / 1e6:.3g} Mpixel/s"
        self._progress.update(self._progress.task_ids[0], completed=self._done, detail=words)
        if self._progress.disable and now - self._said > EVERY_S:
            self._said = now
            log.info(
                "%s: %d of %d tiles, %s, %s left",
                *(self._name, self._done, self._tiles, words, left),
            )


@contextmanager
def pace(name: str, tiles: int, pixels_of_tile: int, *, shown: bool) -> Iterator[Pace]:
    """Yield what is called with the number of tiles that were done.

    Args:
        name: of the scene.
        tiles: that this rank may have to do.
        pixels_of_tile: that each adds to a map.
        shown: on this rank.
    """
    with bar(name, tiles, shown=shown) as progress:
        yield Pace(name, tiles, pixels_of_tile, progress)
