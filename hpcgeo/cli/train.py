"""`hpcgeo train`: one process, mpirun, srun and torchrun alike."""

import json
from pathlib import Path
from typing import Annotated

import typer

from hpcgeo.cli.outputs import refuse_unwritable
from hpcgeo.config import RunConfig, load
from hpcgeo.errors import InputError
from hpcgeo.launch.environment import discover
from hpcgeo.launch.preemption import hold
from hpcgeo.train.preflight import refuse_unnamed_data

app = typer.Typer()


@app.command()
def train(
    recipe: Annotated[
        str, typer.Argument(help="A name of `hpcgeo list recipes`, or a YAML file (*.yaml).")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Options to change: key=value, dotted.")
    ] = None,
    show: Annotated[
        bool, typer.Option("--print", help="Print the resolved configuration and stop.")
    ] = False,
    dry: Annotated[
        bool,
        typer.Option(
            "--dry", help="Build everything, say whether it fits and what it takes, and stop."
        ),
    ] = False,
    check_resume: Annotated[
        int | None,
        typer.Option(
            help="Train nothing: show that N steps, save, load, N steps equal 2 N steps.",
            metavar="N",
            min=1,
        ),
    ] = None,
    ranks: Annotated[
        int | None, typer.Option(help="With --dry: plan for this many ranks.", min=1)
    ] = None,
    collectives: Annotated[
        Path | None,
        typer.Option(
            help="With --dry: build the engine on tensors without values, and write every "
            "collective of a step, in order, a JSON line each."
        ),
    ] = None,
) -> None:
    """Train a recipe, or go on where it stopped.

    A run lives in run.dir. If that folder holds a run with the same configuration, it is resumed
    from its newest checkpoint; with another configuration it is refused, never overwritten.

    The launcher is found from the environment, no flag is needed:

        hpcgeo train mae_vit_tiny train.steps=50

        torchrun --nproc-per-node 2 --no-python hpcgeo train mae_vit_tiny run.dir=runs/two

        mpirun -n 4 hpcgeo train mae_vit_tiny run.dir=runs/four parallel.strategy=FULL_SHARD

        srun -N 2 --ntasks-per-node 8 hpcgeo train mae_vit_15b data.path=/path/to/shards

    A run means the same on any number of ranks that gives the same global batch: micro_batch x
    accumulate x data-parallel ranks (all ranks, divided by parallel.tensor).

    USR2, TERM or Ctrl-C to the ranks, or the end of the time (of the job, or
    launch.time_limit) less what a save takes, finish the step, save, and exit with 0; a second
    Ctrl-C does not wait. srun and mpirun hand USR2 on to their ranks; torchrun does not. The job
    scripts of `hpcgeo jobs` then requeue their job until the run is done (launch.requeue).

    --dry says first whether the run fits the memory of the machine's devices, how long it takes and
    how many node-hours, as far as that is known; it exits with 2 where the run does not fit.
    --check-resume N exits with 0 where an interrupted run is bit by bit the uninterrupted one, else
    with 1.
    """
    asked = {"--print": show, "--dry": dry, "--check-resume": check_resume is not None}
    if len(typed := [name for name, given in asked.items() if given]) > 1:
        raise InputError(f"{' and '.join(typed)}: each stands instead of training: choose one")
    if ranks is not None and not dry:
        raise InputError(
            "--ranks has no effect without --dry: a launcher starts the ranks of a run"
        )
    if collectives is not None and not dry:
        raise InputError("--collectives has no effect without --dry: it writes what a run would do")
    refuse_unwritable(collectives, "--collectives")
    run = load(recipe, overrides or [])
    if show:
        typer.echo(run.to_yaml(), nl=False)
        return
    # torch is imported from here on: help and a refused option are instant.
    if dry:
        from hpcgeo.train.dry_run import dry_run

        world_size = ranks or discover().world_size
        found = dry_run(run, world_size)
        typer.echo(str(found))
        if collectives is not None:
            _rehearse(run, world_size, collectives)
        if found.fits.word == "does not fit":
            raise typer.Exit(2)
        return
    refuse_unnamed_data(run)
    hold()
    from hpcgeo.cli.ranks import ranked

    if check_resume is not None:
        from hpcgeo.train.check_resume import check_resume as check

        ranked(lambda: check(run, check_resume))
        return
    from hpcgeo.train.loop import pretrain

    ranked(lambda: pretrain(run))


def _rehearse(run: RunConfig, world_size: int, file: Path) -> None:
    """Write what rank 0 would exchange in a step, and say it in short."""
    from hpcgeo.files import write_text
    from hpcgeo.profiling.rehearsal import rehearse

    done = rehearse(run, world_size)
    lines = (json.dumps(call._asdict()) for call in done.calls)
    write_text(file, "".join(f"{line}\n" for line in lines))
    held = {
        cause.removesuffix("_bytes"): value
        for cause, value in done.memory.model_dump().items()
        if isinstance(value, int) and not cause.startswith(("peak", "limit"))
    }
    causes = ", ".join(f"{cause} {value / 2**30:.3g}" for cause, value in held.items() if value)
    typer.echo(f"rehearsed     {sum(held.values()) / 2**30:.3g} GiB at the peak ({causes})")
    typer.echo(f"collectives   of the last micro-batch, in order in {file}:\n{done}")
