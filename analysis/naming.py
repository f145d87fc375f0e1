"""Names as a reader says them: the family and size of a model, a machine, where its parts lie."""

import re
from collections.abc import Sequence
from itertools import takewhile

from hpcgeo.strategies import strategies
from hpcgeo_analysis.formatting import listed
from hpcgeo_analysis.points import StudyPoint
from hpcgeo_analysis.winners import shared_by

#: Families whose name is no plain word.
_FAMILIES = {"vit": "ViT", "gpna": "GPNA", "swin": "Swin"}


def models(names: Sequence[str]) -> tuple[str, dict[str, str]]:
    """Return what models are called together, and what is left to tell them apart.

    >>> models(["vit_base_gated", "vit_3b_gated"])
    ('ViT', {'vit_base_gated': 'Base', 'vit_3b_gated': '3B'})
    >>> models(["vit_tiny", "gpna_tiny"])[0], models(["vit_tiny"])
    ('vit_tiny and gpna_tiny', ('vit_tiny', {'vit_tiny': 'vit_tiny'}))
    """
    words = [name.split("_") for name in names]
    first = _shared(words)
    last = _shared([own[first:][::-1] for own in words])
    shorter = [own[first : len(own) - last] for own in words]
    if len(names) < 2 or not first or not all(shorter):
        return listed(names), {name: name for name in names}
    family = "_".join(_FAMILIES.get(word, word) for word in words[0][:first])
    labels = ["_".join(_size(word) for word in rest) for rest in shorter]
    return family, dict(zip(names, labels, strict=True))


def place(machine: str) -> str:
    """Return a machine as a name in a title.

    >>> place("frontier"), place("local"), place("lumi-g")
    ('Frontier', 'this machine', 'Lumi-g')
    """
    return "this machine" if machine == "local" else machine[:1].upper() + machine[1:]


def advice(point: StudyPoint) -> str:
    """Return what a strategy does, as an order: ``replicate``, ``shard inside a node``, ..."""
    row, among = strategies().get(point.first.strategy), shared_by(point)
    if row is None or among is None:
        return point.layout
    if row.optimizer == "none":
        return "replicate"
    if row.optimizer == "group":
        inside = among * point.nodes <= point.devices
        return "shard inside a node" if inside else f"shard over {among:,} devices"
    if row.parameters == "none":
        return "shard the optimizer"
    whole = row.reshard_after_forward
    return "shard over all devices" if whole else "shard, gathered once a step"


def _shared(words: Sequence[Sequence[str]]) -> int:
    """Return with how many equal parts all begin."""
    return sum(1 for _ in takewhile(lambda parts: len(set(parts)) == 1, zip(*words, strict=False)))


def _size(word: str) -> str:
    return word.upper() if re.fullmatch(r"\d+[bmk]", word) else word[:1].upper() + word[1:]
