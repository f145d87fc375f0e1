"""`hpcgeo profile` (and `hpcgeo-profile`): measure a recipe, or a grid of them."""

from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from hpcgeo.log import set_up
from hpcgeo.machines import grid as grid_of

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
    grid: Annotated[
        str | None,
        typer.Option(
            help="Electricity grid of the CO2, a row of facts/grids.yaml, or grams per kWh; by "
            "default that of the machine."
        ),
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
        grid=None if grid is None else grid_of(grid),
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


@app.command()
def collectives(
    first: Annotated[
        str, typer.Option("--from", help="Smallest message: a number with B, KB, KiB, MB, ...")
    ] = "1KiB",
    last: Annotated[
        str | None,
        typer.Option("--to", help="Largest message; by default 64MiB on CPUs, 1GiB on devices."),
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


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="Records: a file, or a folder that holds some.")],
    b: Annotated[Path, typer.Argument(help="The records held against them.")],
    tolerance: Annotated[
        float, typer.Option(help="Changes up to this share are none.", min=0)
    ] = 0.02,
    confidence: Annotated[
        float, typer.Option(help="Of the interval of a ratio.", min=0.5, max=0.999)
    ] = 0.95,
    between: Annotated[
        list[str] | None,
        typer.Option(
            help="A key that may differ between A and B: torch, device, machine, dtype, knobs; "
            "repeatable."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say which points of B are faster or slower than in A, or within noise.

    Points are matched by all that makes them alike but the commit; records of one point are
    repeats. Slower is a ratio of median step times above the tolerance whose confidence interval
    leaves out 1. The interval comes from the runs' medians where a side has several, else from
    blocks of consecutive steps: then it covers the noise within a run alone. Peak memory is
    compared with the same tolerance.

    Exit codes: 0 nothing is shown to be worse; 2 bad input, or no point is in both; 3 a point is
    slower, takes more memory, or fails where it did not.

        hpcgeo-profile compare before.jsonl after.jsonl

        hpcgeo-profile compare torch-2.7/ torch-2.13/ --between torch --json
    """
    module = import_module("hpcgeo.profiling.compare")
    found = module.compare(a, b, tolerance=tolerance, confidence=confidence, between=between or [])
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        console = import_module("rich.console").Console()
        if not console.is_terminal:
            console.width = 200  # into a pipe nothing is folded
        console.print(module.table(found))
        for name, points in (("A", found.only_a), ("B", found.only_b)):
            for point in points:
                typer.echo(f"only in {name}: {point}")
        for note in found.notes:
            typer.echo(f"note: {note}")
    if found.worse:
        raise typer.Exit(3)
