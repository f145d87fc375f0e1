"""Measured steps as a plan takes them: what a record says was run, and which of them are odd.

Outliers are named without any prediction: by their own line over nodes, and by their neighbours in
group size.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hpcgeo.config import RunConfig
from hpcgeo.errors import InputError
from hpcgeo.machines import Machine, machine
from hpcgeo.objectives.table import objective
from hpcgeo.options import Parallel, Train
from hpcgeo.plan.calibration import Calibration
from hpcgeo.plan.protocols import Prefetch, Protocol, protocol, protocol_of
from hpcgeo.plan.steps import PredictedStep, predict_step
from hpcgeo.records import Record
from hpcgeo.strategies import strategy
from hpcgeo.zoo import Architecture, Forms, architecture

#: A line has collapsed where a node reaches less than this of what its first point reached.
COLLAPSED = 0.65
#: A dip: less than this of both neighbours, in nodes and in the size of groups.
DIP_IN_NODES, DIP_IN_GROUPS = 0.95, 0.9

#: FSDP1's names of when backward gathers.
PREFETCH: dict[str, Prefetch] = {
    "BACKWARD_PRE": "before",
    "BACKWARD_POST": "after",
    "none": "none",
}


@dataclass(frozen=True)
class MeasuredStep:
    """A measured step.

    Attributes:
        record: it was measured in.
        odd: how it stands out of its line; empty: it does not.
    """

    record: Record
    forms: Forms
    parallel: Parallel
    train: Train
    by: Protocol
    where: Machine
    odd: str = ""

    @property
    def seconds(self) -> float:
        """Of the step, as measured."""
        assert self.record.images_per_s is not None
        return self.record.global_batch / self.record.images_per_s

    def predicted(self, figures: Calibration | None = None) -> PredictedStep:
        """Return the step as it is predicted."""
        step = predict_step(
            self.forms,
            self.parallel,
            self.train,
            self.record.world_size,
            self.where,
            by=self.by,
            figures=figures,
        )
        assert step is not None, "cases are of devices with a peak"
        return step


def cases(records: Iterable[Record]) -> list[MeasuredStep]:
    """Return what can be predicted of records that ran, odd ones marked."""
    found = [case for record in records if (case := _case(record))]
    return [replace(case, odd=odd) for case, odd in zip(found, _odd(found), strict=True)]


def forms_of_record(record: Record) -> Forms | None:
    """Return the closed forms of what a record ran; None: not known."""
    if record.chip is None or record.bands is None:
        return None
    try:
        row = architecture(record.model)
        if record.config and "objective" in record.config:
            run = RunConfig.model_validate(record.config)
            chosen = objective(run.objective.name)(run.objective, run.seed)
            return chosen.forms(row, record.bands, record.chip)
    except (InputError, ValueError):
        return None
    if record.objective != "classification" or not isinstance(row, Architecture):
        return None
    return classification(row, record.bands, record.chip, record.parameters)


def options_of_fsdp1(record: Record) -> dict[str, Any]:
    """Return how FSDP1 was set in the study of prefetching; empty for all other records."""
    return (record.config or {}).get("fsdp1", {})


def classification(
    row: Architecture, bands: int, chip: tuple[int, int], parameters: int | None = None
) -> Forms:
    """Return the forms of a classifier of all patches, as the Frontier study timed it."""
    patches, stack = row.num_patches(chip), row.encoder
    pixels = row.patch**2 * bands
    whole = parameters or row.parameters(bands, classes=1000)
    embedding = 2 * patches * pixels * stack.width
    return Forms(
        stacks=((stack, patches + 1 + row.registers),),
        root_parameters=whole - stack.parameters,
        edge_flops=embedding,
        input_flops=embedding,
        edge_bytes=lambda dtype_bytes: dtype_bytes * patches * (pixels + stack.width),
        view_bytes=4 * bands * chip[0] * chip[1],
        summary=f"{patches} patches",
    )


def _case(record: Record) -> MeasuredStep | None:
    forms, fsdp1 = forms_of_record(record), options_of_fsdp1(record)
    # What the study ran without exchange is its arithmetic alone; our own records say less.
    whole = not record.bare or record.kind == "published"
    if forms is None or record.status != "ok" or not record.images_per_s or not whole:
        return None
    if fsdp1.get("limit_all_gathers") is False:
        return None  # gathers run ahead without bound: the allocator decides, not a clock
    try:
        where = machine(record.machine)
        chosen = strategy(record.strategy)
    except InputError:
        return None
    if where.model is None or where.model.peak(record.dtype) is None:
        return None
    by = protocol("fsdp1") if record.kind == "published" else protocol_of(chosen)
    if "backward_prefetch" in fsdp1:
        by = replace(by, prefetch=PREFETCH[fsdp1["backward_prefetch"]])
    run = (record.config or {}).get("parallel", {})
    parallel = Parallel(
        strategy=record.strategy,
        group_size=record.group_size,
        recompute=_recompute(record.recompute),
        reduce_dtype=run.get("reduce_dtype", record.dtype),
        tensor=run.get("tensor", 1),
    )
    train = Train(
        steps=1,
        micro_batch=record.micro_batch,
        accumulate=record.accumulate,
        dtype=record.dtype,
    )
    return MeasuredStep(record, forms, parallel, train, by, where)


def _recompute(said: str) -> Any:
    return int(said) if said.isdigit() else said if said in ("full", "selective") else "none"


def _odd(found: Sequence[MeasuredStep]) -> list[str]:
    """Return for each case how it stands out of its line."""
    places: dict[tuple[Any, ...], float] = {}
    for case in found:
        r = case.record
        if r.images_per_s and not options_of_fsdp1(r):
            places[_line(case), r.group_size, r.nodes] = r.images_per_s / r.nodes
    return ["" if options_of_fsdp1(case.record) else _how_odd(case, places) for case in found]


def _line(case: MeasuredStep) -> tuple[Any, ...]:
    r = case.record
    return r.machine, r.model, r.objective, r.strategy, r.dtype, r.micro_batch, r.recompute


def _how_odd(case: MeasuredStep, places: dict[tuple[Any, ...], float]) -> str:
    line, k, nodes = _line(case), case.record.group_size, case.record.nodes
    here = places[line, k, nodes]
    over_nodes = sorted(n for one, size, n in places if (one, size) == (line, k))
    if here < COLLAPSED * places[line, k, over_nodes[0]]:
        return "collapsed"
    if _dips(here, [places[line, k, n] for n in _beside(over_nodes, nodes)], DIP_IN_NODES):
        return "dip in nodes"
    if k is not None and k > 1:
        sizes = sorted(size for one, size, n in places if (one, n) == (line, nodes) and size > 1)
        if _dips(here, [places[line, size, nodes] for size in _beside(sizes, k)], DIP_IN_GROUPS):
            return "dip in groups"
    return ""


def _beside(values: Sequence[int], one: int) -> list[int]:
    place = values.index(one)
    return [values[n] for n in (place - 1, place + 1) if 0 <= n < len(values)]


def _dips(here: float, beside: Sequence[float], below: float) -> bool:
    return len(beside) == 2 and here < below * min(beside)
