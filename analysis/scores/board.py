"""Scores side by side: a row an encoder, a column a task and protocol, the newest of each cell."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hpcgeo.scores import PROTOCOL, Score
from hpcgeo_analysis.formatting import counted, digits, listed

#: Fields of a protocol in which scores of a column may differ, where that is asked for.
MIXABLE = tuple(name for name in PROTOCOL if name not in ("task", "metric"))

#: How a field of a protocol is said.
_WORDS: dict[str, Callable[[Any], str]] = {
    "reader": lambda value: f"reader {value}",
    "target": lambda value: f"target {value}" if value else "the only target",
    "data": lambda value: f"data {value[:8]}",
    "split": lambda value: f"{value} split",
    "samples": lambda value: counted(value, "sample"),
    "labels": lambda value: counted(value, "label"),
    "image_size": lambda value: f"{value} px" if value else "no images",
    "normalise": lambda value: f"moments of the {value}",
    "refit": lambda value: "refitted" if value else "not refitted",
}


def said(score: Score, field: str) -> str:
    """Return a field of a protocol in words.

    >>> _WORDS["labels"](1680), _WORDS["image_size"](224)
    ('1,680 labels', '224 px')
    """
    return _WORDS.get(field, str)(getattr(score, field))


def shown(value: float | None) -> str:
    """Return a metric.

    >>> shown(0.95), shown(123.456), shown(None)
    ('0.950', '123.5', 'not defined')
    """
    if value is None:
        return "not defined"
    return f"{value:.3f}" if abs(value) < 10 else digits(value, 4)


def span(score: Score) -> str:
    """Return the interval of a score; nothing where it has none."""
    if score.low is None or score.high is None:
        return ""
    return f"{shown(score.low)} to {shown(score.high)}"


def amount(value: float) -> str:
    """Return a count, or what is less than one, with its prefix.

    >>> amount(22_056_576), amount(4.6e15), amount(300), amount(0.0512)
    ('22.1 M', '4.60 P', '300', '0.0512')
    """
    for power, name in ((18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if value >= 10**power:
            return f"{digits(value / 10**power)} {name}"
    return f"{value:g}" if value == round(value) else digits(value)


@dataclass(frozen=True)
class ScoreRow:
    """Whose features: the name, and its score in each column, None where it has none."""

    name: str
    cells: tuple[Score | None, ...]

    @property
    def scores(self) -> list[Score]:
        return [score for score in self.cells if score]

    @property
    def first(self) -> Score:
        return self.scores[0]


@dataclass(frozen=True)
class ScoreColumn:
    """What may be held against each other.

    Attributes:
        title: the task, and what tells the column from others of the same task.
        protocol: in words, without what all columns have in common.
        entries: name and score of each row that has one.
    """

    title: str
    protocol: str
    entries: tuple[tuple[str, Score], ...]

    @property
    def first(self) -> Score:
        return self.entries[0][1]

    @property
    def sign(self) -> int:
        """1 where a higher score is better, else -1."""
        return 1 if self.first.better == "higher" else -1

    @cached_property
    def encoders(self) -> list[tuple[str, Score]]:
        """Trained encoders, the best first; without those whose score is not defined."""
        found = [(n, s) for n, s in self.entries if s.whose == "encoder" and s.value is not None]
        return sorted(found, key=lambda entry: -self.sign * (entry[1].value or 0))

    @cached_property
    def level(self) -> list[tuple[str, Score]]:
        """Encoders behind the best whose interval overlaps its."""
        return [e for e in self.encoders[1:] if apart(self.encoders[0][1], e[1]) is False]

    @property
    def led(self) -> bool:
        """Whether there are others, and the interval of the best overlaps none of theirs."""
        return len(self.encoders) > 1 and all(
            apart(self.encoders[0][1], score) for _, score in self.encoders[1:]
        )

    def beside(self, score: Score, whose: str) -> float | None:
        """Return what stands beside an encoder: the score of its random weights, or of samples."""
        lead = score.leads.get(whose, (None, None, None))[0]
        return None if lead is None or score.value is None else score.value - self.sign * lead


@dataclass(frozen=True)
class ScoreBoard:
    """All scores that count.

    Attributes:
        older: scores left out for a newer one of the same features and protocol.
        changed: those of them whose value is another.
        copies: scores that were read twice.
        common: what all columns have in common, in words.
        mixed: fields in which scores of a column differ, as asked.
    """

    rows: tuple[ScoreRow, ...]
    columns: tuple[ScoreColumn, ...]
    older: int
    changed: int
    copies: int
    common: str
    mixed: tuple[str, ...] = ()

    @cached_property
    def scores(self) -> list[Score]:
        return [score for row in self.rows for score in row.scores]

    @cached_property
    def unlike(self) -> list[str]:
        """Fields of the protocol in which columns of one task differ."""
        found = _unlike([column.first for column in self.columns])
        return [name for name in PROTOCOL if name in found and name not in self.mixed]


def apart(one: Score, other: Score) -> bool | None:
    """Whether the intervals of two scores do not overlap; None where one has none."""
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return None
    return one.high < other.low or other.high < one.low


def board(scores: Sequence[Score], copies: int = 0, mixed: Sequence[str] = ()) -> ScoreBoard:
    """Return scores by row and column; of equal row and column the newest counts.

    Args:
        scores: in the order in which they were written; at least one.
        copies: that were read twice.
        mixed: fields of `MIXABLE` in which scores of one column may differ: rows differ in them.
    """
    newest = {_key(score): score for score in sorted(scores, key=lambda score: score.date)}
    left = [score for score in scores if newest[_key(score)] is not score]
    changed = [score for score in left if newest[_key(score)].value != score.value]
    names = _names(list({_of(score): score for score in newest.values()}.values()))
    mixed = [name for name in PROTOCOL if name in mixed and name in _unlike(list(newest.values()))]
    alike: dict[tuple[Any, ...], list[Score]] = {}
    for score in newest.values():
        column = tuple(getattr(score, field) for field in PROTOCOL if field not in mixed)
        alike.setdefault(column, []).append(score)
    grouped = [
        [
            (", ".join([names[_of(s)], *(said(s, field) for field in _differ(own, mixed))]), s)
            for s in own
        ]
        for own in alike.values()
    ]
    firsts = [entries[0][1] for entries in grouped]
    fields = [name for name in PROTOCOL if name not in ("task", *mixed)]
    differs = _differ(firsts, fields)
    common = [name for name in fields if name not in differs]
    columns = [
        ScoreColumn(_title(entries, firsts, mixed), _said(entries[0][1], differs), tuple(entries))
        for entries in grouped
    ]
    columns.sort(key=lambda column: (-len(column.encoders), column.title))
    cells = [dict(column.entries) for column in columns]
    rows = [
        ScoreRow(name, tuple(cell.get(name) for cell in cells))
        for name in sorted({n for c in cells for n in c}, key=lambda name: _place(name, columns))
    ]
    return ScoreBoard(
        *(tuple(rows), tuple(columns), len(left), len(changed), copies),
        *(_said(firsts[0], common), tuple(mixed)),
    )


def _key(score: Score) -> tuple[Any, ...]:
    return _of(score), score.protocol_key


def _of(score: Score) -> tuple[str, str | None]:
    return score.whose, score.fingerprint


def _names(firsts: Sequence[Score]) -> dict[tuple[str, str | None], str]:
    """Return what rows are called; what makes equal names differ is added."""
    found = {_of(score): _name(score) for score in firsts}
    for add in (_step, lambda score: (score.fingerprint or "")[:8]):
        times = Counter(found.values())
        for score in firsts:
            name = found[_of(score)]
            if times[name] > 1 and (more := add(score)):
                found[_of(score)] = f"{name}, {more}"
    return found


def _name(score: Score) -> str:
    if score.whose == "samples":
        return "the samples themselves"
    if score.whose == "random":
        return f"random weights of {score.encoder.get('model')}"
    named, colon, file = str(score.encoder.get("encoder") or "an encoder").partition(":")
    return named if colon and file and "/" not in named else Path(named).name or named


def _step(score: Score) -> str:
    step = score.encoder.get("step")
    return "" if step is None else f"step {step}"


def _place(name: str, columns: Sequence[ScoreColumn]) -> tuple[int, float, str]:
    """Return where a row stands: encoders by their mean rank, random weights, samples."""
    whose = next(dict(c.entries)[name].whose for c in columns if name in dict(c.entries))
    ranks = [n for c in columns for n, entry in enumerate(c.encoders) if entry[0] == name]
    mean = sum(ranks) / len(ranks) if ranks else float(len(columns))
    return ("encoder", "random", "samples").index(whose), mean, name


def _unlike(firsts: Sequence[Score]) -> set[str]:
    """Return the fields in which scores of one task differ."""
    found = set()
    for task in {score.task for score in firsts}:
        own = [score for score in firsts if score.task == task]
        found |= set(_differ(own, PROTOCOL))
    return found


def _differ(scores: Sequence[Score], names: Sequence[str]) -> list[str]:
    """Return the fields in which scores differ, of those named."""
    return [name for name in names if len({getattr(score, name) for score in scores}) > 1]


def _title(
    entries: Sequence[tuple[str, Score]], firsts: Sequence[Score], mixed: Sequence[str]
) -> str:
    """Return the task, what sets the column apart, and in what its scores are unlike."""
    score = entries[0][1]
    own = _unlike([other for other in firsts if other.task == score.task])
    differs = [said(score, name) for name in PROTOCOL if name in own and name not in mixed]
    if unlike := _differ([one for _, one in entries], mixed):
        differs.append(f"unlike in {listed([name.replace('_', ' ') for name in unlike])}")
    return f"{score.task} ({', '.join(differs)})" if differs else score.task


def _said(score: Score, names: Sequence[str]) -> str:
    return ", ".join(said(score, name) for name in names if name != "target" or score.target)
