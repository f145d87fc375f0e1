"""`hpcgeo profile` (and `hpcgeo-profile`): measure a recipe, or a grid of them."""

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from hpcgeo.log import set_up

app = typer.Typer(
    no_args_is_help=True, help="Measure a recipe, or a grid of them; records are JSON lines."
)
Records = Annotated[Path, typer.Option(help="File of records to append to (JSON lines).")]


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A name of `hpcgeo list recipes`, or a YAML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Knobs to change: key=value, dotted.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Measured steps.", min=1)] = 20,
    warmup: Annotated[int, typer.Option(help="Steps discarded before them.", min=1)] = 5,
    records: Records = Path("records.jsonl"),
) -> None:
    """Measure one recipe and append one record.

    Start it like training, under any launcher:

        hpcgeo-profile run mae_vit_tiny --steps 20

        mpirun -n 4 hpcgeo-profile run mae_vit_tiny parallel.strategy=FULL_SHARD
    """
    # torch is imported from here on: help is instant.
    ranked = import_module("hpcgeo.cli.ranks").ranked
    profile_run = import_module("hpcgeo.profiling.profiler").profile_run
    ranked(
        lambda: profile_run(recipe, overrides or [], steps=steps, warmup=warmup, records=records)
    )


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


@app.command()
def collectives(
    first: Annotated[
        str, typer.Option("--from", help="Smallest message: a number with B, KB, KiB, MB, ...")
    ] = "1KiB",
    last: Annotated[
        str | None,
        typer.Option("--to", help="Largest message. [default: 64MiB on CPUs, 1GiB on devices]"),
    ] = None,
    machine: Annotated[
        str, typer.Option(help="Where this is: a row of `hpcgeo list machines`.")
    ] = "local",
    seconds: Annotated[float, typer.Option(help="Time to take, about.", min=0.1)] = 60,
    records: Annotated[Path, typer.Option(help="File to append a line to.")] = Path("links.jsonl"),
    machine_file: Annotated[
        Path | None, typer.Option(help="Write latency, bandwidth and cliffs here (YAML).")
    ] = None,
) -> None:
    """Measure all_reduce, all_gather and reduce_scatter over message sizes and groups of ranks.

    Groups are pair (the two nearest ranks), node and all; all groups of a kind run at once. Sizes
    double; message size, algorithm and bus bandwidth are those of nccl-tests. Start it like
    training, under any launcher:

        mpirun -n 4 hpcgeo-profile collectives --machine-file links.yaml

        srun -N 4 --ntasks-per-node 8 hpcgeo-profile collectives --machine frontier --from 24KB
    """
    in_bytes = import_module("hpcgeo.plan.links").bytes_of
    first_bytes, last_bytes = in_bytes(first), None if last is None else in_bytes(last)
    # torch is imported from here on: help and a refused size are instant.
    ranked = import_module("hpcgeo.cli.ranks").ranked
    measure = import_module("hpcgeo.profiling.collectives").measure
    ranked(
        lambda: measure(
            first_bytes,
            last_bytes,
            machine_name=machine,
            seconds=seconds,
            records=records,
            machine_file=machine_file,
        )
    )
