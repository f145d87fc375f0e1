"""What happens to a source that cannot become samples: it is skipped, and the reason is kept."""

from dataclasses import dataclass


class UnusableError(Exception):
    """A source that cannot become samples; the text says why in one line."""


@dataclass(frozen=True)
class Skipped:
    """A source, or a part of it, that did not become samples."""

    path: str
    reason: str
