"""The kinds of task, by name: ours, and those of installed packages (entry points)."""

from hpcgeo.kinds.change import Change
from hpcgeo.kinds.classification import Classification
from hpcgeo.kinds.kind import Kind
from hpcgeo.kinds.multilabel import Multilabel
from hpcgeo.kinds.pixel_regression import PixelRegression
from hpcgeo.kinds.regression import Regression
from hpcgeo.kinds.segmentation import Segmentation
from hpcgeo.kinds.super_resolution import SuperResolution
from hpcgeo.kinds.target import Target
from hpcgeo.kinds.unlabelled import Unlabelled
from hpcgeo.tables import find_open, loaded, plugins

KINDS: dict[str, Kind] = {
    "classification": Classification(),
    "multilabel": Multilabel(),
    "regression": Regression(),
    "segmentation": Segmentation(),
    "change": Change(),
    "pixel_regression": PixelRegression(),
    "super_resolution": SuperResolution(),
    "unlabelled": Unlabelled(),
}

GROUP = "hpcgeo.kinds"


def kinds() -> dict[str, Kind]:
    """Return all kinds of task; those of other packages are imported."""
    return KINDS | {name: loaded(entry) for name, entry in plugins(GROUP).items()}


def kind_of(target: Target) -> Kind:
    """Return the kind of a task; an unknown name is an InputError that lists the known ones."""
    return find_open(KINDS, GROUP, target.kind, "kind of task")
