"""What was left out and why, and what a reader should know before trusting the rest."""

from collections.abc import Sequence

from hpcgeo.records import MISSING, SOFT, UNSTARTED, Record
from hpcgeo_analysis.blocks import ALIKE, ReportBlock, Section, Study
from hpcgeo_analysis.formatting import counted, listed, percent, rate, seconds, span
from hpcgeo_analysis.points import StudyPoint
from hpcgeo_analysis.separation import BATCHING, CONFIGURATION, differing, shortened, sides
from hpcgeo_analysis.tables import Table, TableCell, text, whole, without_constant

#: Largest disagreement between images_per_s and global_batch / median step.
DISAGREE = 0.02
#: What a point is, as `_place` says it.
Place = tuple[str | int, ...]

#: Sentences of one kind before the rest is counted.
NAMED = 10
#: Values that are listed, words that a list may have, and that the name of a point may have.
LISTED, WORDS, NAME = 4, 14, 10


def section(study: Study) -> Section:
    """Return failures, noise, what was separated, and cautions."""
    blocks = [
        _failed(study.records),
        ReportBlock("Kept apart, since unlike", _few(separated(study.points))),
        ReportBlock("Noisy: repeat these", _few(noisy(study))),
        ReportBlock("Still getting faster: repeat with more warm-up", _few(unsettled(study))),
        ReportBlock("Cautions", _few(cautions(study))),
    ]
    found = [block for block in blocks if not block.empty]
    return Section("omissions", "What was left out, and why", "", found, "")


def separated(points: Sequence[StudyPoint]) -> list[str]:
    """Return what keeps records apart, from their own values, and whose values these are."""
    trained = [point for point in points if point.candidate]
    sentences = []
    for key, values in differing({point.context for point in trained}).items():
        if key in ("model", BATCHING, *SOFT):
            continue  # named everywhere, lines of one comparison, footnotes on one line
        if key == CONFIGURATION:
            sentences.append("options: recorded of some points only.")
            continue
        who = sides(trained, key) if key == "dtype" else ""
        if not who and len(values) <= LISTED:
            who = listed([shortened(key, value, values) for value in values])
        if not who or len(who.split()) > WORDS:
            who = counted(len(values), "value")
        sentences.append(f"{key}: {who}.")
    return sentences


def noisy(study: Study) -> list[str]:
    """Return which points spread too far to be trusted."""
    found = []
    for point in study.points:
        if point.noisy and point.tokens_per_s and point.tokens_range:
            found.append(f"{_where(study, point)}: {span(*point.tokens_range)} tokens/s.")
        elif point.noisy and point.step_range:
            low, high = point.step_range
            found.append(f"{_where(study, point)}: a step takes {seconds(low)} to {seconds(high)}.")
    return found


def unsettled(study: Study) -> list[str]:
    """Return which points were measured before their steps had stopped getting faster."""
    early = [p for p in study.points if any(record.stable is False for record in p.records)]
    return [f"{_where(study, point)}." for point in early]


def _where(study: Study, point: StudyPoint) -> str:
    name = study.called(point) + (f" ({point.mark})" if point.mark else "")
    setting = study.setting(point)
    words = f"{name}, {setting}"
    return name if len(words.split()) > NAME or setting == ALIKE else words


def _few(sentences: Sequence[str]) -> list[str]:
    rest = len(sentences) - NAMED
    more = [f"{rest:,} more, marked in the table."]
    return [*sentences[:NAMED], *more] if rest > 1 else list(sentences)


def failed(records: Sequence[Record]) -> tuple[dict[Place, list[Record]], int]:
    """Return the failures of each point that never worked later, and how many did."""
    tries: dict[Place, list[Record]] = {}
    for record in records:
        if record.status != "ok":
            tries.setdefault(_place(record), []).append(record)
    sizes = {_sizes(found[0]) for found in tries.values()}  # a key takes long to build
    worked: dict[Place, str] = {}
    for record in records:
        if record.status == "ok" and _sizes(record) in sizes:
            place = _place(record)
            worked[place] = max(worked.get(place, ""), record.created)
    left = {
        place: found
        for place, found in tries.items()
        if worked.get(place, "") < max(record.created for record in found)
    }
    return left, len(tries) - len(left)


def _place(record: Record) -> Place:
    """Return what a point is; one that failed before it started does not know all of its key."""
    key = (value for name, value in record.key.items() if name not in UNSTARTED)
    return (*key, *_sizes(record))


def _sizes(record: Record) -> Place:
    sizes = (record.world_size, record.nodes, record.micro_batch, record.accumulate)
    return (record.layout, *sizes)


def _failed(records: Sequence[Record]) -> ReportBlock:
    """Return the points that failed, repeats of one cause together."""
    found, mended = failed(records)
    last = [tries[-1].status for tries in found.values()]
    sentences = [
        f"{counted(last.count(status), 'point')} {words}"
        for status, words in (
            ("failed", "failed."),
            ("out_of_memory", "ran out of memory."),
        )
        if status in last
    ]
    if mended:
        verb = "was" if mended == 1 else "were"
        sentences.append(f"{counted(mended, 'point')} failed once and {verb} measured since.")
    head = ["model", "strategy", "devices", "nodes", "micro-batch", "dtype", "communication"]
    head += ["status", "cause", "times", "command"]
    rows = []
    for tries in found.values():
        causes: dict[tuple[object, ...], list[Record]] = {}
        for r in tries:
            causes.setdefault((r.status, r.error, r.command), []).append(r)
        rows += [_failure(same[0], len(same)) for same in causes.values()]
    table = Table("Points that failed, with their cause", head, rows)
    tables = [without_constant(table, ("communication",))] if rows else []
    return ReportBlock("Failed", sentences, tables)


def _failure(record: Record, times: int) -> list[TableCell]:
    return [
        text(record.model),
        text(record.layout),
        whole(record.world_size),
        whole(record.nodes),
        whole(record.micro_batch),
        text(record.dtype),
        text(record.communication),
        text(record.status.replace("_", " ")),
        text(record.error or "no cause was recorded"),
        whole(times),
        TableCell(record.command or MISSING, css="code"),
    ]


def cautions(study: Study) -> list[str]:
    """Return what a reader should know before trusting the numbers."""
    records, sentences = study.records, []
    if study.copies:
        sentences.append(f"{counted(study.copies, 'record')} read twice and counted once.")
    for field, count in sorted(study.newer.items()):
        sentences.append(f"{counted(count, 'record')} of a newer version: {field} was left out.")
    silent = sum(record.bare for record in records)
    if silent:
        sentences.append(
            f"{counted(silent, 'record')} without communication or reading: no training, ranked "
            "nowhere."
        )
    dirty = sum(record.dirty is True for record in records)
    if dirty:
        sentences.append(f"{counted(dirty, 'record')} made from a tree with uncommitted changes.")
    commits = sorted({(record.commit or "")[:10] for record in records} - {""})
    if len(commits) > 1:
        sentences.append(
            f"{len(commits)} commits made these records; a row of the table names its own."
        )
    return [*sentences, *_impossible(records)]


def _impossible(records: Sequence[Record]) -> list[str]:
    sentences = []
    for what in ("mfu", "hfu"):
        shares = [share for record in records if (share := getattr(record, what)) is not None]
        above = [share for share in shares if share > 1]
        if above:
            sentences.append(
                f"{counted(len(above), 'record')} with an impossible {what.upper()} of up to "
                f"{percent(max(above))}: peak or FLOPs are wrong."
            )
    for record in records:
        if record.step_s and record.images_per_s:
            implied = record.global_batch / record.step_s.median
            if abs(record.images_per_s / implied - 1) > DISAGREE:
                sentences.append(
                    f"{record.model}, {record.layout} on {counted(record.world_size, 'device')}: "
                    f"{rate(record.images_per_s)} images/s recorded, {rate(implied)} by its steps."
                )
    return sentences
