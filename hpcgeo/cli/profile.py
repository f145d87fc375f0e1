"""`hpcgeo profile` (and `hpcgeo-profile`): measure a recipe, or a grid of them."""

from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from hpcgeo.log import set_up

app = typer.Typer(
    no_args_is_help=True, help="Measure a recipe, or a grid of them; records are JSON lines."
)
Records = Annotated[Path, typer.Option(help="File of records to append to (JSON lines).")]


class Reading(str, Enum):
    """Where the batches of a profile run come from."""

    real = "real"
    synthetic = "synthetic"


class Switch(str, Enum):
    """On or off."""

    on = "on"
    off = "off"


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A name of `hpcgeo list recipes`, or a YAML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Knobs to change: key=value, dotted.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Measured steps.", min=1)] = 20,
    warmup: Annotated[
        int,
        typer.Option(help="Steps discarded before them, and more while they get faster.", min=1),
    ] = 5,
    data: Annotated[
        Reading,
        typer.Option(help="real: read; synthetic: train on the first batches, held in memory."),
    ] = Reading.real,
    communication: Annotated[
        Switch,
        typer.Option(help="off: collectives do nothing; what a step costs without them."),
    ] = Switch.on,
    product: Annotated[
        bool, typer.Option("--product", help="Measure a matrix product on the device too.")
    ] = False,
    trace: Annotated[
        Path | None,
        typer.Option(help="Folder for the trace of every rank, for ui.perfetto.dev."),
    ] = None,
    records: Records = Path("records.jsonl"),
) -> None:
    """Measure one recipe and append one record.

    Start it like training, under any launcher:

        hpcgeo-profile run mae_vit_tiny --steps 20

        mpirun -n 4 hpcgeo-profile run mae_vit_tiny parallel.strategy=FULL_SHARD

    The same with --communication off, and with --data synthetic, says how much of a step is
    communication that hurts, and how much is reading; the report puts them side by side.
    """
    # torch is imported from here on: help is instant.
    ranked = import_module("hpcgeo.cli.ranks").ranked
    profiler = import_module("hpcgeo.profiling.profiler")
    options = profiler.Options(
        steps=steps,
        warmup=warmup,
        communication=communication is Switch.on,
        reading=data is Reading.real,
        product=product,
        traces=trace,
    )
    ranked(lambda: profiler.profile_run(recipe, overrides or [], options, records))


@app.command()
def sweep(
    file: Annotated[Path, typer.Argument(help="The grid, as in profiles/*.yaml.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Knobs for all points: key=value, dotted.")
    ] = None,
    records: Records = Path("records.jsonl"),
    plan: Annotated[bool, typer.Option("--plan", help="List the points and stop.")] = False,
) -> None:
    """Run a grid here, one point after the other.

    A point measured with the same configuration, commit and versions is skipped (never where the
    tree has uncommitted changes); one that fails is recorded with its cause, and tried again the
    next time. Exit code 3 if any failed.

        hpcgeo-profile sweep profiles/local_vit_tiny.yaml --records records.jsonl
    """
    set_up()
    sweeps = import_module("hpcgeo.profiling.sweep")
    grid = sweeps.load_sweep(file, overrides or [])
    if plan:
        for point in sweeps.points(grid):
            typer.echo(str(point))
        return
    measured, failed = sweeps.run_sweep(grid, records)
    typer.echo(f"{measured} measured, {failed} failed, in {records}")
    if failed:
        raise typer.Exit(3)
