"""What was left out and why, and what a reader should know before trusting the rest."""

from collections.abc import Sequence

from hpcgeo.records import MISSING, NOISY, SOFT, UNSTARTED, Record
from hpcgeo_analysis.blocks import ALIKE, DRAWN, ReportBlock, Section, Study, name
from hpcgeo_analysis.comparisons import Comparison
from hpcgeo_analysis.formatting import counted, listed, percent, rate, seconds, span
from hpcgeo_analysis.points import CONTEXT, StudyPoint
from hpcgeo_analysis.sections.steps import decomposition
from hpcgeo_analysis.separation import BATCHING, differing, setting, shortened, sides
from hpcgeo_analysis.tables import Table, TableCell, text, whole, without_constant
from hpcgeo_analysis.winners import LEVEL

#: Largest disagreement between images_per_s and global_batch / median step.
DISAGREE = 0.02
#: What a point is, as `_place` says it.
Place = tuple[str | int, ...]

#: Points of one kind named before the rest is counted.
NAMED = 20


def section(study: Study) -> Section:
    """Return failures, noise, what was separated, and cautions."""
    blocks = [
        ReportBlock("Separated", separated(study.points)),
        _failed(study.records),
        ReportBlock("Noisy", _few(noisy(study)), warns=True),
        ReportBlock("Still getting faster", _few(unsettled(study)), warns=True),
        ReportBlock("Cautions", cautions(study), warns=True),
    ]
    found = [block for block in blocks if not block.empty]
    return Section("omissions", "What was left out, and why", "", found, "Nothing.")


def separated(points: Sequence[StudyPoint]) -> list[str]:
    """Return what keeps records apart, from their own values, and whose values these are."""
    trained = [point for point in points if point.candidate]
    contexts = {point.context for point in trained}
    names = [column for column in CONTEXT if column not in ("options", *SOFT)]
    sentences = []
    for key, values in differing(contexts).items():
        if key == BATCHING or key in SOFT:
            continue  # the one is lines of a comparison, the other marks points of a line
        if key in names or key == "configuration" or len(values) <= 6:
            who = listed([shortened(key, value, values) for value in values])
            if key == "dtype":
                who = sides(trained, key)
            sentences.append(f"{key}: {who}.")
        else:
            sentences.append(f"{key}: {counted(len(values), 'value')}.")
    if sentences:
        first = "Only points of equal key stand in one comparison; these differ:"
        return [f"{first} {' '.join(sentences)}"]
    if trained:
        values = {column: setting(trained[0].context, column) for column in names}
        known = [f"{column} {text}" for column, text in values.items() if text not in ("", MISSING)]
        return [f"Nothing: all points have {listed(known)}, and every recorded option in common."]
    return []


def noisy(study: Study) -> list[str]:
    """Return which points spread too far to be trusted."""
    found = []
    for point in study.points:
        if point.noisy and point.tokens_per_s and point.tokens_range:
            found.append(
                f"{_where(study, point)}: {rate(point.tokens_per_s)} tokens a second, "
                f"{span(*point.tokens_range)}."
            )
        elif point.noisy and point.step_range:
            low, high = point.step_range
            found.append(
                f"{_where(study, point)}: {seconds(point.step_s)} a step, {seconds(low)} to "
                f"{seconds(high)}."
            )
    head = f"(p90 - p10) / median of the step time exceeds {percent(NOISY)}: repeat these."
    if any(point.tokens_per_s for point in study.points):
        head = head.replace("step time", "step time, or of tokens per second,")
    return [head, *found] if found else []


def unsettled(study: Study) -> list[str]:
    """Return which points were measured before their steps had stopped getting faster."""
    early = [p for p in study.points if any(record.stable is False for record in p.records)]
    return [f"{_where(study, point)}." for point in early]


def _where(study: Study, point: StudyPoint) -> str:
    setting = study.setting(point)
    rest = f"{name(point)}, micro-batch {point.first.micro_batch:,}"
    return rest if setting == ALIKE else f"{rest}, {setting}"


def _few(sentences: Sequence[str]) -> list[str]:
    rest = len(sentences) - NAMED
    more = [f"{rest:,} more; they are marked wherever they appear."]
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
            ("failed", "failed; in no figure."),
            ("out_of_memory", "ran out of memory; in no figure."),
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
    return ReportBlock("Failed", sentences, (), tables, warns=True)


def _failure(record: Record, times: int) -> list[TableCell]:
    return [
        text(record.model),
        text(record.layout, "line"),
        whole(record.world_size),
        whole(record.nodes),
        whole(record.micro_batch),
        text(record.dtype),
        text(record.communication),
        text(record.status.replace("_", " ")),
        text(record.error or "no cause was recorded"),
        whole(times),
        TableCell(record.command or MISSING, record.command or "", "code"),
    ]


def cautions(study: Study) -> list[str]:
    """Return what a reader should know before trusting the numbers."""
    records, sentences = study.records, []
    if study.copies:
        sentences.append(f"{counted(study.copies, 'record')} read twice and counted once.")
    if study.newer:
        fields = listed([f"{name} ({count:,})" for name, count in sorted(study.newer.items())])
        sentences.append(
            f"Records of a newer version have fields that this one does not know, left out: "
            f"{fields}."
        )
    silent = sum(record.bare for record in records)
    if silent:
        shown = "" if decomposition(study.points).empty else "; see the decomposition"
        sentences.append(
            f"{counted(silent, 'record')} with communication off or cached batches: no "
            f"training, so in no comparison of throughput{shown}."
        )
    dirty = sum(record.dirty is True for record in records)
    if dirty:
        sentences.append(f"{counted(dirty, 'record')} made from a tree with uncommitted changes.")
    timed = [p for p in study.points if p.images_per_s and p.first.kind != "predicted"]
    bare = sum(point.range is None for point in timed)
    if bare:
        sentences.append(
            f"{counted(bare, 'point')} of {len(timed):,} without a spread: less than "
            f"{percent(LEVEL)} apart they are called level, and beyond it nothing says that a "
            "difference is more than noise."
        )
    if len(study.comparisons) > DRAWN:
        sentences.append(
            f"Figures of {DRAWN} of {len(study.comparisons):,} comparisons, those of each model "
            "with most points; the tables hold all."
        )
    return [
        *sentences,
        *noted(study.points),
        *_commits(study.comparisons),
        *_impossible(records),
    ]


def noted(points: Sequence[StudyPoint]) -> list[str]:
    """Return what records note, and of which points."""
    found: dict[str, list[StudyPoint]] = {}
    for point in points:
        for note in point.notes:
            found.setdefault(note, []).append(point)
    sentences = []
    for note, own in found.items():
        models = listed(list(dict.fromkeys(point.first.model for point in own)))
        layouts = list(dict.fromkeys(point.layout for point in own))
        who = f"{listed(layouts)} of {models}" if len(layouts) < 3 else models
        sentences.append(f"{counted(len(own), 'point')}, {who}: {note}.")
    return sentences


def _commits(comparisons: Sequence[Comparison]) -> list[str]:
    sentences = []
    for comparison in comparisons:
        commits = sorted(
            {(r.commit or "")[:10] for s in comparison.scaled for r in s.point.records} - {""}
        )
        if len(commits) > 1:
            sentences.append(f"{comparison.title}: made by several commits: {listed(commits)}.")
    return sentences


def _impossible(records: Sequence[Record]) -> list[str]:
    sentences = []
    for what in ("mfu", "hfu"):
        shares = [share for record in records if (share := getattr(record, what)) is not None]
        above = [share for share in shares if share > 1]
        if above:
            sentences.append(
                f"{counted(len(above), 'record')} with an {what.upper()} above 100 % (up to "
                f"{percent(max(above))}): impossible, so the peak or the FLOPs are wrong; not "
                "shown, nor that of its repeats."
            )
    for record in records:
        if record.step_s and record.images_per_s:
            implied = record.global_batch / record.step_s.median
            if abs(record.images_per_s / implied - 1) > DISAGREE:
                sentences.append(
                    f"{record.model}, {record.layout} on {counted(record.world_size, 'device')}: "
                    f"images_per_s is {rate(record.images_per_s)}, but global batch over median "
                    f"step is {rate(implied)}."
                )
    return sentences
