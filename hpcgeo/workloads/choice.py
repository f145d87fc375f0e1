"""Which workload a run is: by its data, and by what its objective takes."""

from hpcgeo.config import RunConfig
from hpcgeo.data.labelled import ONLY
from hpcgeo.errors import InputError
from hpcgeo.objectives.objective import IMAGES, Objective
from hpcgeo.objectives.table import objective
from hpcgeo.options import SYNTHETIC, Data, Mixture, Task
from hpcgeo.workloads.images import Images
from hpcgeo.workloads.mixture import MixtureRun
from hpcgeo.workloads.workload import Workload
from hpcgeo.zoo import Forms, architecture


def objective_of(run: RunConfig) -> Objective:
    """Return the objective of a run."""
    return objective(run.objective.name)(run.objective, run.seed)


def workload_of(run: RunConfig) -> Workload:
    """Return what a run does, its data opened.

    Raises:
        InputError: data, model and objective do not fit together.
    """
    chosen = objective_of(run)
    if isinstance(run.data, Data) and IMAGES in chosen.data:
        return Images(run, chosen)
    return MixtureRun(as_samples(run), chosen)


def as_samples(run: RunConfig) -> RunConfig:
    """Return a run whose images (`data.path`) are read as samples of one data set.

    Raises:
        InputError: they are generated, or an option of images has no meaning for samples.
    """
    data = run.data
    if isinstance(data, Mixture):
        return run
    height, width = data.chip
    for wrong, said in (
        (
            data.path == SYNTHETIC,
            f"data.path {SYNTHETIC} holds no samples: give a set of `hpcgeo data build`",
        ),
        (data.layout is not None, f"data.layout {data.layout}: samples are of sets of one layout"),
        (height != width, f"data.chip {height} x {width}: samples are square"),
    ):
        if wrong:
            raise InputError(said)
    task = Task(reader="shards", path=data.path, size=height)
    return run.model_copy(update={"data": Mixture(tasks={ONLY: task}, workers=data.workers)})


def forms_of(run: RunConfig, bands: int | None) -> Forms | None:
    """Return the closed forms of a run on images of so many bands; None: they are not known."""
    if bands is None or not isinstance(run.data, Data):
        return None
    return objective_of(run).forms(architecture(run.model.name), bands, run.data.chip)
