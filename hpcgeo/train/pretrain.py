"""Pretraining: the one place where models, data and parallel meet, and the loop."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from hpcgeo.config import RunConfig
from hpcgeo.data.dataset import Dataset
from hpcgeo.data.loader import Batch, Loader, open_dataset
from hpcgeo.data.transforms import Views
from hpcgeo.files import write_text
from hpcgeo.launch.environment import Environment, discover
from hpcgeo.launch.preemption import Stop
from hpcgeo.launch.rendezvous import master
from hpcgeo.launch.requeue import request
from hpcgeo.log import log, set_up
from hpcgeo.machines import machine
from hpcgeo.models.initialise import draw
from hpcgeo.objectives.mae import MAE
from hpcgeo.objectives.masking import noise
from hpcgeo.parallel.choice import engine_of
from hpcgeo.parallel.engine import Engine, Initial, Inputs
from hpcgeo.parallel.group import join, on_rank_0
from hpcgeo.parallel.topology import Topology, lay_out
from hpcgeo.phases import phase
from hpcgeo.records import Record
from hpcgeo.strategies import strategy
from hpcgeo.train import divergence, pictures
from hpcgeo.train.checkpoint import Checkpoints
from hpcgeo.train.faults import agree, explained
from hpcgeo.train.meter import Meter
from hpcgeo.train.parts import Parts
from hpcgeo.train.record import describe
from hpcgeo.train.run_folder import LOCK, begin, claim
from hpcgeo.train.schedule import learning_rate
from hpcgeo.train.start import Start
from hpcgeo.train.watchdog import Watchdog
from hpcgeo.zoo import architecture

NUM_PICTURES = 6


def pretrain(run: RunConfig, meter_of: Callable[..., Meter] = Meter) -> Record:
    """Train a run to its end, or to a stop, and return its record.

    Every rank calls it; the environment says which rank this is. A run whose folder exists goes on
    from its newest checkpoint.

    Args:
        run: the resolved configuration.
        meter_of: what measures the steps.

    Raises:
        InputError: configuration, data set and run folder do not fit together.
    """
    environment = discover()
    with Watchdog(environment, run.train.patience_s) as watchdog, explained(watchdog.place):
        return _pretrain(run, meter_of, environment, watchdog)


def _pretrain(
    run: RunConfig, meter_of: Callable[..., Meter], environment: Environment, watchdog: Watchdog
) -> Record:
    parts = build(run, environment, watchdog)
    folder = on_rank_0(lambda: claim(run))
    watchdog.lock = folder / LOCK
    checkpoints = Checkpoints(
        folder / "checkpoints",
        run.checkpoint,
        global_batch=parts.global_batch,
        data=parts.dataset.digest,
    )
    first_step = checkpoints.restore(parts.engine)
    on_rank_0(lambda: begin(run, folder, first_step))
    log.info(
        "%s, %s step %d of %d", folder, "from" if first_step else "at", first_step, run.train.steps
    )
    meter = meter_of(folder, run, parts, first_step)
    with meter, Stop(environment, run.launch) as stop:
        step = _loop(run, parts, checkpoints, meter, stop, watchdog, first_step, folder)
    watchdog.at("ending")
    record = _conclude(run, parts, meter, environment, folder, step)
    if step < run.train.steps and run.checkpoint.every:
        log.info("stopped at step %d of %d; start it again to go on", step, run.train.steps)
        if run.launch.requeue and environment.rank == 0:
            request(
                run.launch.requeue,
                reason=stop.reason or "a rank was asked to stop",
                began=first_step,
                step=step,
                saved=checkpoints.steps(),
            )
    return record


def build(run: RunConfig, environment: Environment, watchdog: Watchdog) -> Parts:
    """Join the other ranks and build the parts of a run.

    Raises:
        InputError: they do not fit together, or the ranks cannot meet.
    """
    set_up(environment.rank, environment.host)
    model = architecture(run.model.name)
    model.num_visible(run.data.chip, run.objective.mask_ratio)
    machine(run.launch.machine)
    chosen = strategy(run.parallel.strategy)
    layout = chosen.layout(environment.world_size, dict(run.parallel))
    model.refuse_cut(layout.tp)
    engine_of(chosen)  # a missing package is said before anything is opened
    dataset = open_dataset(run.data)
    device = join(
        environment.rank,
        environment.world_size,
        environment.local_rank,
        environment.local_size,
        master(environment),
        run.launch.threads,
        host=environment.host,
        meet_s=run.launch.meet_s,
    )
    watchdog.begin()
    agree(run, dataset, environment.host, device)
    topology = lay_out(
        environment.rank, environment.local_rank, environment.host, device, chosen, layout
    )
    log.info("%s", topology)
    return Parts(
        dataset,
        topology,
        new_engine(run, dataset, topology),
        Views(dataset, run.data.chip, run.data.augment, run.seed),
        run.train.micro_batch * run.train.accumulate * layout.data_parallel,
    )


def new_engine(run: RunConfig, dataset: Dataset, topology: Topology) -> Engine:
    """Return a model with its initial weights, spread over the ranks."""
    with torch.device("meta"):
        objective = MAE(architecture(run.model.name), len(dataset.bands), run.objective)
    return engine_of(topology.strategy)(
        objective,
        topology,
        parallel=run.parallel,
        optim=run.optim,
        dtype=getattr(torch, run.train.dtype),
        accumulate=run.train.accumulate,
        initial=_initial(run, objective),
    )


def _initial(run: RunConfig, objective: MAE) -> Initial:
    """Return where the initial weights come from."""
    if run.model.weights is None:
        return partial(draw, seed=run.seed)
    shapes = {name: parameter.shape for name, parameter in objective.named_parameters()}
    return Start(run.model.weights, objective.architecture, shapes).rows


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
    every, stopping = run.checkpoint.every, False
    watchdog.step = step
    batches = watchdog.reading(iter(loader(run, parts, step)))
    while step < run.train.steps and not stopping:
        lr = learning_rate(step, run.train.steps, parts.global_batch, run.optim)
        waited = meter.waiting(batches, run.train.accumulate)
        (losses, grad_norm), seconds = meter.measure(partial(one_step, run, parts, waited, lr))
        watchdog.at("writing metrics")
        stopping = meter.record(
            losses,
            seconds=seconds,
            epoch=step * parts.global_batch // len(parts.dataset),
            lr=lr,
            grad_norm=grad_norm,
            stop=stop.requested(checkpoints.save_s, seconds) is not None,
        )
        step += 1
        watchdog.step = step
        if meter.skips:
            divergence.keep(
                meter.rows[-1], losses["loss"], run, parts.topology, parts.dataset, folder
            )
            checkpoints.wait()  # one of good weights may be under way
            divergence.refuse(meter.rows[-1], run.train.max_skips, folder, checkpoints.steps())
        last = stopping or step == run.train.steps
        # After a skipped step the parameters are in doubt: they replace no checkpoint.
        if every and (last or (step % every == 0 and not meter.skips)):
            watchdog.at("saving a checkpoint")
            meter.standing_still(partial(checkpoints.save, step, parts.engine))
            stop.saved(checkpoints.save_s)
        if run.train.reconstruct_every and step % run.train.reconstruct_every == 0:
            watchdog.at("drawing a picture")
            _reconstruct(run, parts, folder, step)
    watchdog.at("saving a checkpoint")
    checkpoints.wait()
    if stop.reason:
        log.warning("%s: stopping after step %d", stop.reason, step)
    return step


def one_step(
    run: RunConfig, parts: Parts, batches: Iterable[Batch], lr: float
) -> tuple[dict[str, Tensor], Tensor]:
    """Train on the micro-batches of one step; return this rank's losses and the gradient's norm."""
    losses = parts.engine.forward_backward(_inputs(run, parts, batch) for batch in batches)
    return losses, parts.engine.step(lr)


def _conclude(
    run: RunConfig, parts: Parts, meter: Meter, environment: Environment, folder: Path, step: int
) -> Record:
    """Leave the last picture and the record."""
    if meter.rows:
        if run.train.reconstruct_every is not None:
            _reconstruct(run, parts, folder, step)
        first, last = meter.rows[0], meter.rows[-1]
        log.info(
            "loss %.4f at step %d, %.4f at step %d",
            first["loss"],
            first["step"],
            last["loss"],
            last["step"],
        )
    record = describe(run, parts, meter)
    if environment.rank == 0 and meter.measured():
        write_text(folder / "record.json", record.model_dump_json() + "\n")
    return record


def loader(run: RunConfig, parts: Parts, first_step: int) -> Loader:
    """Return what reads this rank's batches from a step on."""
    return Loader(
        parts.dataset,
        seed=run.seed,
        micro_batch=run.train.micro_batch,
        accumulate=run.train.accumulate,
        rank=parts.topology.data_rank,
        world=parts.topology.layout.data_parallel,
        workers=run.data.workers,
        first_step=first_step,
    )


def _inputs(run: RunConfig, parts: Parts, batch: Batch) -> Inputs:
    device = parts.topology.device
    num_patches = architecture(run.model.name).num_patches(run.data.chip)
    with phase("host_to_device"):
        return {
            "images": parts.views(batch, device),
            "noise": noise(run.seed, batch.position, num_patches).to(device),
        }


def _reconstruct(run: RunConfig, parts: Parts, folder: Path, step: int) -> None:
    """Picture the same samples every time, behind the same masks; every rank computes along."""
    index = pictures.spread_out(NUM_PICTURES, len(parts.dataset))
    pixels, valid = parts.dataset.read(index)
    batch = Batch(torch.from_numpy(pixels), valid, position=index, index=index)
    images = parts.views.plain(batch, parts.topology.device)
    mask = noise(run.seed, index, architecture(run.model.name).num_patches(run.data.chip))
    holes, whole = parts.engine.evaluate(
        "reconstruct", {"images": images, "noise": mask.to(parts.topology.device)}
    )
    if parts.topology.rank == 0:
        titled = {"input": images, "masked": holes, "reconstruction": whole}
        columns = {name: parts.views.denormalise(tensor) for name, tensor in titled.items()}
        path = folder / "reconstructions" / f"step-{step:08d}.png"
        pictures.save(path, columns, pictures.visible(parts.dataset.bands, parts.dataset.sensor))
