"""The points of a sweep and their states: a live table on a terminal, a line a change elsewhere."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hpcgeo.log import log

#: States in the order of interest, with their colours. `recorded`: by an earlier call.
STATES = {
    "running": "cyan",
    "failed": "red",
    "out of memory": "magenta",
    "noisy": "yellow",
    "measured": "green",
    "done": "green",
    "queued": "blue",
    "waiting": "dim",
    "recorded": "dim green",
}
AROUND = 6  #: lines of a terminal that are no rows


@dataclass
class ProgressRow:
    """A point."""

    label: str
    state: str
    details: str
    since_s: float = 0.0  #: when it began to run, on the monotonic clock
    took_s: float | None = None  #: how long it ran

    def __str__(self) -> str:
        return f"{self.label}: {self.state}{f', {self.details}' if self.details else ''}"


class Board:
    """Shows the rows as long as it is entered."""

    def __init__(
        self, labels: Sequence[str], states: Sequence[tuple[str, str]], good: str = "measured"
    ) -> None:
        """Take names, for each state and details, and the state that is hoped for."""
        self._good = good
        points = zip(labels, states, strict=True)
        self.rows = [ProgressRow(label, *state) for label, state in points]
        self._recent: list[ProgressRow] = []
        self._console = Console(stderr=True)
        self._live = self._console.is_terminal

    def set(self, index: int, state: str, details: str = "") -> None:
        """Say the state of a point; what was said already is not said again."""
        row = self.rows[index]
        if (row.state, row.details) == (state, details):
            return
        if state == "running" and row.state != "running":
            row.since_s, row.took_s = time.monotonic(), None
        elif row.state == "running" and state != "running":
            row.took_s = time.monotonic() - row.since_s
        row.state, row.details = state, details
        self._recent = [row, *(other for other in self._recent if other is not row)]
        if not self._live:
            log.info("%s", str(row))

    def detail(self, index: int, details: str) -> None:
        """Show what a point is at; it is not said where there is no live table."""
        self.rows[index].details = details

    def counts(self) -> Counter[str]:
        """Return how many points are in which state."""
        return Counter(row.state for row in self.rows)

    @property
    def total(self) -> str:
        """How many points are in which state; good and failed ones are always told."""
        counts = self.counts()
        noisy = counts.pop("noisy", 0)
        counts[self._good] += noisy
        named = dict.fromkeys([self._good, "failed", *(state for state in STATES if counts[state])])
        told = ", ".join(f"{counts[state]} {state}" for state in named)
        return f"{told}; {noisy} of the measured noisy" if noisy else told

    def __str__(self) -> str:
        return "\n".join(map(str, self.rows))

    def __enter__(self) -> "Board":
        self._shown = Live(
            get_renderable=self._table, console=self._console, refresh_per_second=1, transient=True
        )
        if self._live:
            self._shown.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._shown.stop()

    def _table(self) -> Table:
        table = Table(
            box=None,
            caption=self.total,
            caption_justify="left",
        )
        for name in ("point", "state", "details", "elapsed"):
            table.add_column(name, no_wrap=name != "details")  # which gives way
        for row in self._visible():
            ran = row.took_s
            if row.state == "running":
                ran = time.monotonic() - row.since_s
            table.add_row(
                Text(row.label),
                Text(row.state, style=STATES[row.state]),
                Text(row.details, no_wrap=True, overflow="ellipsis"),
                "" if ran is None else f"{int(ran) // 60}:{int(ran) % 60:02}",
            )
        return table

    def _visible(self) -> list[ProgressRow]:
        """Return the rows that fit: what runs, what changed last, what comes next."""
        room = max(5, self._console.height - AROUND)
        if len(self.rows) <= room:
            return self.rows
        running = [row for row in self._recent if row.state == "running"]
        ended = [row for row in self._recent if row.state not in ("running", "queued", "recorded")]
        coming = [row for row in self.rows if row.state in ("queued", "waiting")]
        return [*running, *ended[: room // 2], *coming][:room]
