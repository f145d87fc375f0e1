"""Training: the one place where a workload and parallel meet, and the loop."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from shlex import quote
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from hpcgeo.checkpoint.checkpoints import Checkpoints
from hpcgeo.config import RunConfig, fixed
from hpcgeo.files import write_text
from hpcgeo.launch.environment import Environment, discover
from hpcgeo.launch.preemption import Stop
from hpcgeo.launch.rendezvous import meeting
from hpcgeo.launch.requeue import request
from hpcgeo.log import log, set_up
from hpcgeo.machines import machine
from hpcgeo.optimizers.table import optimizer
from hpcgeo.parallel.engine import Engine, Initial
from hpcgeo.parallel.engines import engine_of, refuse_uncompiled
from hpcgeo.parallel.group import join, on_rank_0
from hpcgeo.parallel.topology import Topology, lay_out
from hpcgeo.records import Record
from hpcgeo.strategies import strategy
from hpcgeo.train import divergence
from hpcgeo.train.device import hold_to, mention
from hpcgeo.train.faults import agree, explained
from hpcgeo.train.job import Parts
from hpcgeo.train.meter import Meter
from hpcgeo.train.record import describe
from hpcgeo.train.run_folder import LOCK, begin, claim, say_longer
from hpcgeo.train.schedule import extent, frozen, learning_rate
from hpcgeo.train.watchdog import Watchdog
from hpcgeo.workloads.choice import workload_of
from hpcgeo.workloads.workload import Workload


def pretrain(
    run: RunConfig, meter_of: Callable[..., Meter] = Meter, *, work: str | None = None
) -> Record:
    """Train a run to its end, or to a stop, and return its record.

    Every rank calls it; the environment says which rank this is. A run whose folder exists goes on
    from its newest checkpoint.

    Args:
        run: the resolved configuration.
        meter_of: what measures the steps.
        work: what all its ranks name alike, and those of another run do not; by default the folder.

    Raises:
        InputError: configuration, data set and run folder do not fit together.
    """
    environment = discover()
    with (
        Watchdog(environment, run.train.hang_timeout_s) as watchdog,
        explained(watchdog.place, watchdog.first),
    ):
        return _pretrain(run, meter_of, environment, watchdog, work)


def _pretrain(
    run: RunConfig,
    meter_of: Callable[..., Meter],
    environment: Environment,
    watchdog: Watchdog,
    work: str | None,
) -> Record:
    parts = build(run, environment, watchdog, work)
    folder = on_rank_0(lambda: claim(run))
    watchdog.lock = folder / LOCK
    checkpoints = Checkpoints(
        folder / "checkpoints",
        run.checkpoint,
        global_batch=parts.global_batch,
        data=parts.workload.dataset.fingerprint,
        run=fixed(run),
    )
    first_step = checkpoints.restore(parts.engine)
    on_rank_0(lambda: say_longer(run, folder, first_step, parts.global_batch))
    on_rank_0(lambda: begin(run, folder, first_step))
    on_rank_0(lambda: parts.workload.keep(folder))
    log.info(
        "%s, %s step %d of %d", folder, "from" if first_step else "at", first_step, run.train.steps
    )
    if environment.rank == 0 and work is None:
        _say_what(run, parts, folder)
    meter = meter_of(folder, run, parts, first_step)
    with meter, Stop(environment, run.launch) as stop:
        step = _loop(run, parts, checkpoints, meter, stop, watchdog, first_step, folder)
        watchdog.at("ending")
        _evaluate_last(run, parts, meter, watchdog, folder, step)
    record = _conclude(run, parts, meter, environment, folder)
    if step < run.train.steps and run.checkpoint.every and not parts.workload.done:
        log.info("stopped at step %d of %d; start it again to go on", step, run.train.steps)
        if run.launch.requeue and environment.rank == 0:
            request(
                run.launch.requeue,
                reason=stop.reason or "a rank was asked to stop",
                began=first_step,
                step=step,
                saved=checkpoints.steps(),
            )
    elif run.checkpoint.every and environment.rank == 0:
        _say_what_next(parts, folder)
    return record


def _say_what(run: RunConfig, parts: Parts, folder: Path) -> None:
    """Say what is trained on what, for how long, and where to look."""
    steps = extent(run.train.steps, parts.global_batch, len(parts.workload.dataset))
    curves = f"curves        tensorboard --logdir {quote(str(folder))}"
    lines = [*parts.workload.about(), f"steps         {steps}", curves]
    log.info("%s", "\n  ".join(lines))


def _say_what_next(parts: Parts, folder: Path) -> None:
    """Say what can be done with a run that has ended, as commands to copy."""
    commands = [*parts.workload.commands(), "hpcgeo report RUN --run RUN --out RUN/report"]
    lines = [command.replace("RUN", quote(str(folder))) for command in commands]
    log.info("%s", "\n  ".join(["next:", *lines]))


def build(
    run: RunConfig, environment: Environment, watchdog: Watchdog, work: str | None = None
) -> Parts:
    """Join the other ranks, of the same `work`, and build the parts of a run.

    Raises:
        InputError: they do not fit together, or the ranks cannot meet.
    """
    set_up(environment.rank, environment.host)
    if environment.idle:
        log.warning("%s", environment.idle)
    where = machine(run.launch.machine)
    hold_to(where)
    chosen = strategy(run.parallel.strategy)
    layout = chosen.layout(environment.world_size, dict(run.parallel))
    optimizer(run.optim.name).refuse(run.optim, chosen.backend, run.parallel.offload)
    engine_of(chosen)  # a missing package is said before anything is opened
    if run.parallel.compile:
        refuse_uncompiled()
    workload = workload_of(run)
    workload.refuse_cut(layout.tp)
    device = meet(run, environment, work)
    watchdog.begin()
    agree(run, workload.dataset, environment.host, device)
    place = (environment.rank, environment.local_rank, environment.host, device)
    topology = lay_out(*place, chosen, layout, where.devices)
    log.info("%s", topology)
    mention(environment, where, topology, run.train.dtype)
    return Parts(
        workload,
        topology,
        new_engine(run, workload, topology),
        run.train.micro_batch * run.train.accumulate * layout.data_parallel,
    )


def meet(run: RunConfig, environment: Environment, work: str | None = None) -> torch.device:
    """Join the other ranks, of the same `work` or folder, and return the device of this one."""
    return join(
        environment.rank,
        environment.world_size,
        environment.local_rank,
        environment.local_size,
        meeting(environment),
        run.launch.threads,
        run=work or str(run.run.dir),
        host=environment.host,
        rendezvous_timeout_s=run.launch.rendezvous_timeout_s,
    )


def new_engine(
    run: RunConfig, workload: Workload, topology: Topology, initial: Initial | None = None
) -> Engine:
    """Return a model with its initial weights, or those given, spread over the ranks."""
    with torch.device("meta"):
        objective = workload.objective()
    return engine_of(topology.strategy)(
        objective,
        topology,
        parallel=run.parallel,
        optim=run.optim,
        dtype=getattr(torch, run.train.dtype),
        accumulate=run.train.accumulate,
        initial=initial or workload.initial(objective),
    )


def _loop(
    run: RunConfig,
    parts: Parts,
    checkpoints: Checkpoints,
    meter: Meter,
    stop: Stop,
    watchdog: Watchdog,
    step: int,
    folder: Path,
) -> int:
    """Train from `step` on; return the step reached."""
    every = run.checkpoint.every
    parts.workload.done = stopping = on_rank_0(lambda: parts.workload.ended(folder, step))
    watchdog.step = step
    workload, topology = parts.workload, parts.topology
    batches = watchdog.reading(iter(workload.batches(topology, step)))
    while step < run.train.steps and not stopping:
        lr = learning_rate(step, run.train.steps, parts.global_batch, run.optim)
        waited = meter.waiting(batches, run.train.accumulate)
        parts.engine.frozen = frozen(step, run.optim)
        (losses, grad_norm), seconds = meter.measure(partial(one_step, parts, waited, lr))
        epoch = step * parts.global_batch // len(workload.dataset)
        step += 1
        evaluates, saves = (bool(n and step % n == 0) for n in (run.train.eval_every, every))
        stopping = meter.record(
            losses,
            seconds=seconds,
            epoch=epoch,
            lr=lr,
            grad_norm=grad_norm,
            stop=stop.requested(checkpoints.save_s, meter.step_s) is not None,
            report=evaluates or saves or step == run.train.steps,
        )
        watchdog.at("writing metrics")
        meter.write()
        watchdog.step = step
        for row, loss in meter.fresh:
            if row["skipped"]:
                divergence.keep(row, loss, run, topology, workload, folder)
                checkpoints.wait()  # one of good weights may be under way
                divergence.refuse(row, run.train.max_skips, folder, checkpoints.steps())
        last = stopping or step == run.train.steps
        if evaluates and not last:
            evaluating = partial(watchdog.at, "evaluating the model")
            evaluating()
            workload.evaluate(parts.engine, topology, folder, step, evaluating)
            meter.evaluated(step)
            last = stopping = workload.done
        # After a skipped step the parameters are in doubt: they replace no checkpoint.
        if every and (last or (saves and not meter.skips)):
            watchdog.at("saving a checkpoint")
            meter.standing_still(partial(checkpoints.save, step, parts.engine))
            stop.saved(checkpoints.save_s)
    watchdog.at("saving a checkpoint")
    checkpoints.wait()
    if stop.reason:
        log.warning("%s: stopping after step %d", stop.reason, step)
    return step


def one_step(parts: Parts, batches: Iterator[Any], lr: float) -> tuple[dict[str, Tensor], Tensor]:
    """Train on the micro-batches of one step; return this rank's scalars, the gradient's norm."""
    todo = parts.workload.step(batches, parts.topology.device)
    scalars = parts.engine.forward_backward(todo.passes, todo.count)
    return scalars | todo.scalars, parts.engine.step(lr)


def _evaluate_last(
    run: RunConfig, parts: Parts, meter: Meter, watchdog: Watchdog, folder: Path, step: int
) -> None:
    """Leave the last evaluation."""
    if meter.rows and run.train.eval_every is not None and not parts.workload.done:
        ending = partial(watchdog.at, "ending")
        parts.workload.evaluate(parts.engine, parts.topology, folder, step, ending)
        meter.evaluated(step)


def _conclude(
    run: RunConfig, parts: Parts, meter: Meter, environment: Environment, folder: Path
) -> Record:
    """Say what was reached, and leave the record."""
    if meter.rows:
        few = min(run.train.log_every, len(meter.rows) // 2) or 1
        ends = meter.rows[:few], meter.rows[-few:]
        begin, end = (fmean(row["loss"] for row in rows) for rows in ends)
        log.info(
            "mean loss %.4f in the first %d steps of this start, %.4f in the last",
            *(begin, few, end),
        )
    record = describe(run, parts, meter)
    if environment.rank == 0 and meter.measured():
        write_text(folder / "record.json", record.model_dump_json() + "\n")
    return record
