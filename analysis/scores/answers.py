"""What scores come to in words: the title, one line of trust, a card a column."""

from collections.abc import Sequence

from hpcgeo.scores import Score
from hpcgeo_analysis.answers import Answers, Card
from hpcgeo_analysis.formatting import counted, digits, listed
from hpcgeo_analysis.scores.board import ScoreBoard, ScoreColumn, apart, shown, span

#: Columns that have a card, and that a title names.
CARDS, NAMED = 4, 3

#: What stands beside an encoder.
BESIDE = {"random": "random weights", "samples": "the samples themselves"}


def answers(board: ScoreBoard) -> Answers:
    """Return the first screen."""
    cards = [_card(column) for column in board.columns if column.encoders]
    return Answers(_title(board), _trust(board), tuple(cards[:CARDS]))


def lead(score: Score, over: str) -> str:
    """Return how far an encoder is ahead, with the interval; nothing where that is not known."""
    value, low, high = score.leads.get(over, (None, None, None))
    if value is None:
        return ""
    if low is None or high is None:
        return f"{value:+.3f} against {BESIDE[over]}, without an interval".replace(
            "-", "\N{MINUS SIGN}", 1
        )
    ends = f"{low:+.3f} to {high:+.3f}".replace("-", "\N{MINUS SIGN}")
    if low > 0:
        return f"significantly ahead of {BESIDE[over]}, by {digits(value, 2)} ({ends})"
    if high < 0:
        return f"significantly behind {BESIDE[over]}, by {digits(-value, 2)} ({ends})"
    return f"not significantly ahead of {BESIDE[over]} ({ends})"


def _title(board: ScoreBoard) -> str:
    judged = [column for column in board.columns if column.encoders]
    if not judged:
        return f"No encoder has a score on {listed(_titles(board.columns))}"
    if len(judged) == 1:
        return _of_one(judged[0])
    if len({name for column in judged for name, _ in column.encoders}) == 1:
        return _alone(judged)
    if len(judged) <= NAMED:
        best = _best(judged)
        return "; ".join(f"{name} {_leads(columns)}" for name, columns in best)
    rivalled = [column for column in judged if len(column.encoders) > 1]
    if not rivalled:
        return _each_alone(judged)
    (first, columns), *rest = _best(rivalled)
    more = [f"{name} in {len(own)}" for name, own in rest[: NAMED - 1]]
    where = f"{len(columns)} of {len(rivalled)} columns"
    return ", ".join([f"{first} has the best score in {where}", *more])


def _best(columns: Sequence[ScoreColumn]) -> list[tuple[str, list[ScoreColumn]]]:
    """Return which encoders are best somewhere, and where; the one with most columns first."""
    found: dict[str, list[ScoreColumn]] = {}
    for column in columns:
        found.setdefault(column.encoders[0][0], []).append(column)
    return sorted(found.items(), key=lambda pair: -len(pair[1]))


def _each_alone(columns: Sequence[ScoreColumn]) -> str:
    """Return of how many of its columns each encoder is significantly ahead of random weights."""
    own: dict[str, list[Score]] = {}
    for column in columns:
        for name, score in column.encoders:
            if lead(score, "random"):
                own.setdefault(name, []).append(score)
    if not own:
        return f"{counted(len(columns), 'column')} of scores, no two encoders in one"
    most = sorted(own.items(), key=lambda pair: -len(pair[1]))[:NAMED]
    told = [f"{name} in {sum(map(_ahead, scores))} of {len(scores)}" for name, scores in most]
    more = f", {len(own) - NAMED} others" if len(own) > NAMED else ""
    told_of = f"Significantly ahead of random weights: {', '.join(told)}{more}"
    return f"{told_of}; no two of them share a column"


def _alone(columns: Sequence[ScoreColumn]) -> str:
    """Return what the only encoder does."""
    on = listed(_titles(columns)) if len(columns) <= NAMED else counted(len(columns), "column")
    scores = [column.encoders[0][1] for column in columns]
    held = [score for score in scores if lead(score, "random")]
    ahead = sum(_ahead(score) for score in held)
    more = f": significantly ahead of random weights in {ahead} of {len(held)}" if held else ""
    return f"{columns[0].encoders[0][0]} on {on}{more}"


def _leads(columns: Sequence[ScoreColumn]) -> str:
    """Return where an encoder leads, where it is best without doing so, and where it is alone."""
    rivalled = [column for column in columns if len(column.encoders) > 1]
    kinds = {
        "leads on": [column for column in rivalled if column.led],
        "has the best score on": [column for column in rivalled if not column.led],
        "is alone on": [column for column in columns if column not in rivalled],
    }
    return ", ".join(f"{words} {listed(_titles(own))}" for words, own in kinds.items() if own)


def _of_one(column: ScoreColumn) -> str:
    (name, score), *others = column.encoders
    number = f"{score.metric} {shown(score.value)}"
    value, low, _ = score.leads.get("random", (None, None, None))
    if value is not None and low is None:
        number += f", {lead(score, 'random')}"
    elif value is not None and low is not None:
        by = f"ahead of random weights by {digits(value, 2)}"
        number += f", {by}" if low > 0 else ", not significantly ahead of random weights"
    if not others:
        return f"{name} on {column.title}: {number}"
    if column.led:
        return f"{name} leads on {column.title}: {number}"
    level = [other for other, _ in column.level]
    who = listed(level) if len(level) <= NAMED else counted(len(level), "encoder")
    beside = f", level with {who}" if level else ""
    return f"{name} has the best score on {column.title}{beside}: {number}"


def _titles(columns: Sequence[ScoreColumn]) -> list[str]:
    return [column.title for column in columns]


def _ahead(score: Score) -> bool:
    low = score.leads.get("random", (None, None, None))[1]
    return low is not None and low > 0


def _trust(board: ScoreBoard) -> str:
    encoders = len({s.fingerprint for s in board.scores if s.whose == "encoder"})
    tasks = len({score.task for score in board.scores})
    said = [
        f"{counted(len(board.scores), 'score')} of {counted(encoders, 'encoder')} and what stands "
        f"beside, on {counted(tasks, 'task')}; intervals of 95 % over resamples of the scored split"
    ]
    if board.unlike:
        fields = listed([name.replace("_", " ") for name in board.unlike])
        said.append(f"Columns of one task differ in {fields}; such scores never share a column")
    if board.mixed:
        fields = listed([name.replace("_", " ") for name in board.mixed])
        said.append(f"As asked, scores that differ in {fields} share a column")
    if any(score.low is None and score.value is not None for score in board.scores):
        said.append(
            "No interval where too few resamples define the score, as of less than three locations"
        )
    if board.older:
        differs = f"; {counted(board.changed, 'older value')} differed" if board.changed else ""
        repeats = counted(board.older, "repeat")
        said.append(f"Of {repeats} (same features and protocol) the newest counts{differs}")
    if board.copies:
        said.append(f"{counted(board.copies, 'score')} read twice and counted once")
    if changed := sum(bool(score.uncommitted_changes) for score in board.scores):
        said.append(f"Made with uncommitted changes: {changed} of {len(board.scores)}")
    return f"{'. '.join(said)}."


def _card(column: ScoreColumn) -> Card:
    (name, score), *others = column.encoders
    leads = "; ".join(filter(None, (lead(score, over) for over in BESIDE)))
    interval = f" ({span(score)})" if span(score) else ""
    more = ""
    if others:
        second, next_score = others[0]
        known = {None: "", True: "; the intervals do not overlap", False: "; the intervals overlap"}
        more = f"Next: {second}, {shown(next_score.value)}{known[apart(score, next_score)]}."
    sentence = f"{name}{interval}{'; ' + leads if leads else ''}."
    title = f"{column.title}, {score.metric}"
    return Card(title, shown(score.value), sentence, more, "scores", score.command)
