"""What keeps points apart, and what a reader asked to lay over each other nevertheless."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from zlib import crc32

from hpcgeo.errors import InputError
from hpcgeo.records import MISSING, SOFT
from hpcgeo_analysis.formatting import listed
from hpcgeo_analysis.points import CONTEXT, StudyPoint

#: What separates weak and strong scaling, beside the context.
BATCHES = ("micro_batch", "global_batch")

#: How samples of unequal length share a step: the comparison is of these, so each is a line.
BATCHING = "data.batching.mode"

#: All options at once: a published point has none.
CONFIGURATION = "configuration"

#: The network: of one node it is empty, and agrees with any.
TRANSPORT = "transport"

#: Never on one axis: a model or an objective is another task, `communication off` is no training.
NEVER = ("model", "objective", "communication", "options")


def known(found: Sequence[StudyPoint]) -> list[str]:
    """Return the keys that `together` may name: of context and batches, and recorded options."""
    options = {
        key for context in {point.context for point in found} for key in _options(context[-1])
    }
    columns = [name for name in CONTEXT if name not in (*NEVER, *SOFT)]
    return [*columns, *BATCHES, CONFIGURATION, *sorted(options)]


def check(together: Sequence[str], found: Sequence[StudyPoint]) -> None:
    """Refuse keys that nothing carries, and predictions in one figure with what ran.

    Raises:
        InputError: the message lists the known keys.
    """
    names = known(found)
    for name in together:
        if name in SOFT:
            raise InputError(
                f"--together {name}: points that differ in it share a line already, and are marked "
                "there; leave it out"
            )
        if name not in names:
            raise InputError(
                f"--together {name}: lines cannot differ in this; choose from {', '.join(names)}"
            )
    kinds = {point.first.kind for point in found}
    if "kind" in together and "predicted" in kinds and len(kinds) > 1:
        raise InputError(
            "--together kind: predicted points do not compete with what ran; the report holds them "
            "against each other by itself, or leave the predicted records out"
        )


@lru_cache(maxsize=4096)
def merged(context: tuple[str, ...], together: tuple[str, ...]) -> tuple[str, ...]:
    """Return a context without what may differ."""
    if not together:
        return context
    options = {key: value for key, value in _options(context[-1]).items() if key not in together}
    last = context[-1] if context[-1] == MISSING else json.dumps(options)
    last = "" if CONFIGURATION in together else last
    return (
        *("" if n in together else v for n, v in zip(CONTEXT[:-1], context, strict=False)),
        last,
    )


def differing(contexts: Iterable[tuple[str, ...]]) -> dict[str, list[str]]:
    """Return what separates contexts: the columns, or options, whose values differ, and those."""
    contexts = list(contexts)
    found: dict[str, list[str]] = {}
    for place, name in enumerate(CONTEXT):
        values = sorted({context[place] for context in contexts})
        if name == TRANSPORT:
            values = [network for network in values if network]
        if len(values) < 2:
            continue
        if name != "options":
            found[name] = values
            continue
        recorded = [_options(value) for value in values if value != MISSING]
        if len(recorded) < len(values):
            found[CONFIGURATION] = [MISSING, "recorded"]
        for key in sorted({key for config in recorded for key in config}):
            settings = sorted({json.dumps(config.get(key)) for config in recorded})
            if len(settings) > 1:
                found[key] = settings
    return found


def setting(context: Sequence[str], name: str) -> str:
    """Return the value of a column, or of an option, in a context."""
    if name in CONTEXT[:-1]:
        return context[CONTEXT.index(name)]
    if name == CONFIGURATION:
        return "recorded" if _options(context[-1]) else MISSING
    return MISSING if context[-1] == MISSING else json.dumps(_options(context[-1]).get(name))


def value(point: StudyPoint, name: str) -> str:
    """Return what a point has under a key of `known`."""
    if name in BATCHES:
        return str(getattr(point.first, name))
    if name == CONFIGURATION and point.context[-1] != MISSING:
        return f"{crc32(point.context[-1].encode()):08x}"
    return setting(point.context, name)


def footnotes(point: StudyPoint, base: StudyPoint, batches: Sequence[str] = ()) -> tuple[str, ...]:
    """Return what a point has unlike the base of its line, in words.

    Args:
        batches: those that may differ along the line.
    """
    names = [
        name for name in differing((point.context, base.context)) if name not in (*SOFT, BATCHING)
    ]
    names += [name for name in batches if value(point, name) != value(base, name)]
    found = [f"{phrase(name, value(point, name))} (base: {value(base, name)})" for name in names]
    mine, theirs = point.first.surroundings, base.first.surroundings
    for name in sorted(mine | theirs):
        own, other = mine.get(name, "not set"), theirs.get(name, "not set")
        if own != other:
            found.append(f"{name} {own} (base: {other})")
    return tuple(found)


def parted(
    found: Sequence[StudyPoint], names: Sequence[str], place: Callable[[StudyPoint], object]
) -> list[str]:
    """Return the names in which a line has to be parted to have one value a place; mostly none."""
    kept: list[str] = []
    distinct = len({place(point) for point in found})
    for name in names:
        if distinct == len(found):
            break
        several = len({(place(p), *(value(p, each) for each in [*kept, name])) for p in found})
        if several > distinct:
            kept.append(name)
            distinct = several
    return kept


def telling(found: Sequence[StudyPoint], names: Iterable[str]) -> list[str]:
    """Return those of the names whose values tell more points apart than the ones before."""
    kept: list[str] = []
    distinct = 1
    for name in names:
        several = len({tuple(value(point, each) for each in [*kept, name]) for point in found})
        if several > distinct:
            kept.append(name)
            distinct = several
    return kept


def phrase(name: str, text: str, among: Iterable[str] = ()) -> str:
    """Return a setting as a title says it: its value where that speaks for itself.

    Args:
        name: of a column, a batch or an option.
        text: its value.
        among: the values it is told apart from; what lists have in common is left out.
    """
    plain = ("kind", "machine", "device", "backend", "dtype", "objective")
    text = shortened(name, text, among)
    if name == BATCHING:
        return text.strip('"')
    if name in plain and text != MISSING:
        return text
    return f"{name.replace('_', '-') if name in BATCHES else name} {text}"


def shortened(name: str, text: str, among: Iterable[str]) -> str:
    """Return software, environment or network without what all of them have in common."""
    if name not in ("software", "environment", TRANSPORT):
        return text
    lists = [set(each.split(", ")) for each in {text, *among} if each]
    common = set.intersection(*lists) if len(lists) > 1 else set()
    return ", ".join(part for part in text.split(", ") if part not in common) or "without"


def sides(found: Iterable[StudyPoint], name: str) -> str:
    """Return who has which value, e.g. ``DDP float32; others bfloat16``, or the values alone."""
    layouts: dict[str, set[str]] = defaultdict(set)
    found = list(found)
    among = {value(point, name) for point in found}
    for point in found:
        layouts[shortened(name, value(point, name), among)].add(point.layout)
    order = sorted(layouts, key=lambda text: (len(layouts[text]), text))
    everyone = [layout for text in order for layout in layouts[text]]
    if len(set(everyone)) < len(everyone) or len(everyone) == len(order) > 2:
        return listed(sorted(layouts))
    parts = [f"{listed(sorted(layouts[text]))} {text}" for text in order[:-1]]
    last = layouts[order[-1]]
    who = listed(sorted(last)) if len(last) == 1 else "others"
    return "; ".join([*parts, f"{who} {order[-1]}"])


@lru_cache(maxsize=4096)
def _options(text: str) -> dict[str, object]:
    return {} if text in (MISSING, "") else json.loads(text)
