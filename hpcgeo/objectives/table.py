"""The objectives, by name: ours, and those of installed packages (entry points)."""

from hpcgeo.errors import InputError
from hpcgeo.objectives.combined.objective import Combined
from hpcgeo.objectives.objective import Objective
from hpcgeo.objectives.single import GROUP, SINGLE
from hpcgeo.options import BY_OBJECTIVE, Model
from hpcgeo.tables import find_open, loaded, plugins

OBJECTIVES: dict[str, type[Objective]] = SINGLE | {"combined": Combined}


def objectives() -> dict[str, type[Objective]]:
    """Return all objectives; those of other packages are imported."""
    return OBJECTIVES | {name: loaded(entry) for name, entry in plugins(GROUP).items()}


def objective(name: str) -> type[Objective]:
    """Return an objective; an unknown name is an InputError that lists the known ones."""
    return find_open(OBJECTIVES, GROUP, name, "objective.name")


def fitting(data: str) -> str:
    """Return the names of the objectives that learn from a kind of data, for a message."""
    return ", ".join(name for name, row in OBJECTIVES.items() if row.takes(data))


def refuse_backbone(row: type[Objective], name: str, model: str, family: str) -> None:
    """Refuse a backbone that an objective does not train; an InputError says what would fit."""
    if row.backbones is not None and family not in row.backbones:
        others = [
            other
            for other, each in OBJECTIVES.items()
            if each.backbones is None or family in each.backbones
        ]
        raise InputError(
            f"objective.name {name} trains a {' or '.join(row.backbones)}, and model.name {model} "
            f"is a {family}: choose another row of `hpcgeo list models`, or objective.name "
            f"{' or '.join(others)}"
        )


def refuse_idle(row: type[Objective], name: str, model: Model) -> None:
    """Refuse options of `model` that an objective has no use for; an InputError names the first."""
    for option, only in Model.marked("only").items():
        usual = getattr(model, option) == Model.model_fields[option].default
        if only == BY_OBJECTIVE["only"] and not usual and option not in row.model_options:
            others = [other for other, each in OBJECTIVES.items() if option in each.model_options]
            raise InputError(
                f"model.{option} has no effect under objective.name {name}: leave it out, or "
                f"choose objective.name {' or '.join(others)}"
            )
