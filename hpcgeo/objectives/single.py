"""The objectives that stand alone, or as a term of a combination, by name."""

from hpcgeo.objectives.contrastive.objective import Contrastive
from hpcgeo.objectives.cross_mae.objective import CrossMae
from hpcgeo.objectives.dino.objective import Dino
from hpcgeo.objectives.gfm.objective import Gfm
from hpcgeo.objectives.mae.objective import Mae
from hpcgeo.objectives.masked_tokens.objective import MaskedTokens
from hpcgeo.objectives.multitask.objective import MultiTask
from hpcgeo.objectives.objective import Objective
from hpcgeo.objectives.simmim.objective import Simmim
from hpcgeo.tables import find_open

SINGLE: dict[str, type[Objective]] = {
    "contrastive": Contrastive,
    "cross_mae": CrossMae,
    "dino": Dino,
    "gfm": Gfm,
    "mae": Mae,
    "masked_tokens": MaskedTokens,
    "multitask": MultiTask,
    "simmim": Simmim,
}

GROUP = "hpcgeo.objectives"


def single(name: str) -> type[Objective]:
    """Return an objective that is no combination; an unknown name is an InputError that lists the
    known ones."""
    return find_open(SINGLE, GROUP, name, "objective.name")
