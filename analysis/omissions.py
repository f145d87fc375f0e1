"""What was left out and why, and what a reader should know before trusting the rest."""

from collections.abc import Sequence

from hpcgeo.records import MISSING, NOISY, Record
from hpcgeo_analysis.best import LEVEL
from hpcgeo_analysis.guard import differing, setting, shortened, sides
from hpcgeo_analysis.points import CONTEXT, Point
from hpcgeo_analysis.scaling import Comparison
from hpcgeo_analysis.sections import DRAWN, Block, Section, Study, name
from hpcgeo_analysis.tables import Cell, Table, text, whole
from hpcgeo_analysis.words import counted, listed, percent, rate, seconds

#: Largest disagreement between images_per_s and global_batch / median step.
DISAGREE = 0.02
#: Points of one kind named before the rest is counted.
NAMED = 20


def section(study: Study) -> Section:
    """Return failures, noise, what was separated, and cautions."""
    blocks = [
        Block("Separated", separated(study.points)),
        Block("Failed", _failed(study.records), (), _failures(study.records), warns=True),
        Block("Noisy", _few(noisy(study.points)), warns=True),
        Block("Still getting faster", _few(unsettled(study.points)), warns=True),
        Block("Cautions", cautions(study), warns=True),
    ]
    found = [block for block in blocks if not block.empty]
    return Section("omissions", "What was left out, and why", "", found, "Nothing.")


def separated(points: Sequence[Point]) -> list[str]:
    """Return what keeps records apart, from their own values, and whose values these are."""
    trained = [point for point in points if not point.first.bare]
    contexts = {point.context for point in trained}
    names = [column for column in CONTEXT if column != "knobs"]
    sentences = []
    for key, values in differing(contexts).items():
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
        common = [f"{column} {setting(trained[0].context, column)}" for column in names]
        known = [words for words in common if MISSING not in words]
        return [f"Nothing: all points have {listed(known)}, and every recorded knob in common."]
    return []


def noisy(points: Sequence[Point]) -> list[str]:
    """Return which points spread too far to be trusted."""
    found = []
    for point in points:
        if point.noisy and point.step_range:
            low, high = point.step_range
            found.append(
                f"{name(point)}: {seconds(point.step_s)} a step, {seconds(low)} to {seconds(high)}."
            )
    head = f"(p90 - p10) / median of the step time exceeds {percent(NOISY)}: repeat these."
    return [head, *found] if found else []


def unsettled(points: Sequence[Point]) -> list[str]:
    """Return which points were measured before their steps had stopped getting faster."""
    return [f"{name(p)}." for p in points if any(record.stable is False for record in p.records)]


def _few(sentences: Sequence[str]) -> list[str]:
    rest = len(sentences) - NAMED
    more = [f"{rest:,} more; they are marked wherever they appear."]
    return [*sentences[:NAMED], *more] if rest > 1 else list(sentences)


def _failed(records: Sequence[Record]) -> list[str]:
    failed = [record for record in records if record.status == "failed"]
    full = [record for record in records if record.status == "out_of_memory"]
    sentences = []
    if failed:
        sentences.append(f"{counted(len(failed), 'point')} failed; in no figure.")
    if full:
        sentences.append(f"{counted(len(full), 'point')} ran out of memory; in no figure.")
    return sentences


def _failures(records: Sequence[Record]) -> list[Table]:
    """Return the points that failed, repeats of one cause together."""
    head = ["model", "strategy", "devices", "nodes", "micro-batch", "dtype", "status", "cause"]
    head += ["times", "command"]
    seen: dict[tuple[object, ...], list[Record]] = {}
    for r in records:
        if r.status != "ok":
            place = (r.model, r.layout, r.world_size, r.nodes, r.micro_batch, r.dtype)
            seen.setdefault((*place, r.status, r.error, r.command), []).append(r)
    rows = [
        [
            text(r.model),
            text(r.layout, "line"),
            whole(r.world_size),
            whole(r.nodes),
            whole(r.micro_batch),
            text(r.dtype),
            text(r.status.replace("_", " ")),
            text(r.error or "no cause was recorded"),
            whole(len(same)),
            Cell(r.command or MISSING, r.command or "", "code"),
        ]
        for same in seen.values()
        for r in same[:1]
    ]
    return [Table("Points that failed, with their cause", head, rows)] if rows else []


def cautions(study: Study) -> list[str]:
    """Return what a reader should know before trusting the numbers."""
    records, sentences = study.records, []
    if study.copies:
        sentences.append(f"{counted(study.copies, 'record')} read twice and counted once.")
    silent = sum(record.bare for record in records)
    if silent:
        sentences.append(
            f"{counted(silent, 'record')} with communication off or data held in memory: no "
            "training, so in no comparison of throughput; see the decomposition."
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
    return [*sentences, *_commits(study.comparisons), *_impossible(records)]


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
    above = [record.mfu for record in records if record.mfu is not None and record.mfu > 1]
    if above:
        sentences.append(
            f"{counted(len(above), 'record')} with an MFU above 100 % (up to "
            f"{percent(max(above))}): impossible, so the peak or the FLOPs are wrong; not shown."
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
