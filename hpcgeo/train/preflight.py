"""What is wrong with a run before it starts, found on a login node in seconds.

Of images nothing here needs torch; labelled data sets are opened as the run opens them.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

from hpcgeo.config import RunConfig, load
from hpcgeo.data.shards.dataset import open_dataset
from hpcgeo.errors import InputError
from hpcgeo.launch.look import Looked
from hpcgeo.machines import machine
from hpcgeo.objectives.objective import IMAGES
from hpcgeo.objectives.table import objective
from hpcgeo.optimizers.table import optimizer
from hpcgeo.options import SYNTHETIC, Data
from hpcgeo.plan.fit import Fit, fit
from hpcgeo.strategies import strategy
from hpcgeo.train.run_folder import refuse_other
from hpcgeo.zoo import architecture


def problems(run: RunConfig, ranks: int) -> list[str]:
    """Return what would stop a run on so many ranks before its first step, a line each."""
    checks = partial(_division, run, ranks), partial(_data, run), partial(_weights, run)
    return [line for check in checks for line in _errors(check)]


def refuse_unnamed_data(run: RunConfig) -> None:
    """Refuse to train on generated images on devices of a machine unless that is asked for.

    Raises:
        InputError: nobody has named data.path.
    """
    where = machine(run.launch.machine)
    if where.device and run.source == SYNTHETIC and "path" not in run.data.model_fields_set:
        raise InputError(
            f"data.path is not given: name a folder that `hpcgeo data build` wrote, or for a trial "
            f"on {where.name} data.path={SYNTHETIC}"
        )


def fits(run: RunConfig, ranks: int) -> Fit | None:
    """Return whether the run fits the memory of the machine's devices; None: not known.

    Raises:
        InputError: the run has one of the `problems`.
    """
    device, data = machine(run.launch.machine).model, run.data
    if device is None or not isinstance(data, Data):
        return None
    row = objective(run.objective.name)(run.objective, run.seed)
    forms = row.forms(architecture(run.model.name), len(open_dataset(data).bands), data.chip)
    if forms is None:
        return None
    return fit(forms, run.parallel, run.train, ranks, run.optim, device.memory)


def job_problems(looked: Looked, nodes: int, hours: float) -> tuple[list[str], list[str]]:
    """Return what is wrong with a job before it is submitted, a line each, and what it will be.

    Args:
        looked: what its script says.
        nodes, hours: that it will have.
    """
    found = list(looked.missing)
    try:
        run = load(looked.recipe, looked.overrides)
        where = machine(run.launch.machine)
    except InputError as error:
        return [*found, *str(error).splitlines()], []
    ranks, told = nodes * looked.asked.per_node, []
    try:
        bin_ = where.bin(nodes, hours)
        queue = f"; jobs may last {bin_}" if bin_ else ""
        told.append(f"{nodes} nodes x {hours:g} h = {nodes * hours:g} node-hours a start{queue}")
    except InputError as error:
        found.append(str(error))
    found += _errors(partial(refuse_other, run))
    if looked.missing:  # the data set may be among it
        return [*found, *_errors(partial(_division, run, ranks))], told
    found += problems(run, ranks)
    with suppress(InputError):  # it is among the problems
        fit_ = fits(run, ranks)
        told += [f"memory of a device: {fit_}"] if fit_ else []
        found += [told.pop()] if fit_ and fit_.word == "does not fit" else []
    return found, told


def _errors(check: Callable[[], object]) -> Iterator[str]:
    try:
        check()
    except InputError as error:
        yield str(error)


def _division(run: RunConfig, ranks: int) -> None:
    chosen = strategy(run.parallel.strategy)
    layout = chosen.layout(ranks, dict(run.parallel))
    optimizer(run.optim.name).refuse(run.optim, chosen.backend, run.parallel.offload)
    architecture(run.model.name).refuse_cut(layout.tp)


def _data(run: RunConfig) -> None:
    row, data = objective(run.objective.name), run.data
    if isinstance(data, Data) and IMAGES in row.data:
        architecture(run.model.name).num_patches(data.chip)
        open_dataset(data)
        return
    from hpcgeo.workloads.choice import workload_of  # with torch

    workload_of(run)


def _weights(run: RunConfig) -> None:
    files = {"model.weights": run.model.weights}
    taught = objective(run.objective.name)(run.objective, run.seed)
    sources = taught.sources(architecture(run.model.name))
    files |= {f"objective.{part}weights": path for part, (path, _) in sources.items()}
    for option, path in files.items():
        if path and not path.exists():
            raise InputError(f"{option} {path}: no such file: give one of `hpcgeo export`")
