"""`hpcgeo profile` (and `hpcgeo-profile`): measure, and compare what was measured."""

from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from hpcgeo.cli.outputs import refuse_unwritable
from hpcgeo.cli.submitting import interrupted, refuse_without_submit, submitted
from hpcgeo.log import set_up
from hpcgeo.machines import grid as grid_of

app = typer.Typer(
    no_args_is_help=True,
    help="Measure recipes, grids of them and collectives; compare records. Records are JSON lines.",
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
        list[str] | None, typer.Argument(help="Options to change: key=value, dotted.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Measured steps.", min=1)] = 20,
    warmup: Annotated[
        int,
        typer.Option(help="Steps discarded before them, and more while they get faster.", min=1),
    ] = 5,
    data: Annotated[
        Reading,
        typer.Option(
            help="real: read; synthetic: every step trains on the first batches, cached in memory."
        ),
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
    refuse_unwritable(records, "--records")
    refuse_unwritable(trace, "--trace", folder=True)
    # torch is imported from here on: help is instant.
    from hpcgeo.cli.ranks import ranked
    from hpcgeo.profiling import profiler, run

    options = profiler.Options(
        steps=steps,
        warmup=warmup,
        communication=communication is Switch.on,
        reading=data is Reading.real,
        product=product,
        traces=trace,
        grid=None if grid is None else grid_of(grid),
    )
    ranked(lambda: run.profile_run(recipe, overrides or [], options, records))


@app.command()
def sweep(
    file: Annotated[Path, typer.Argument(help="The grid, as in profiles/*.yaml.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Options for all points: key=value, dotted.")
    ] = None,
    records: Annotated[
        Path | None,
        typer.Option(
            help="File (.jsonl) or folder of records: what is there is skipped, what is measured "
            "is added. By default records.jsonl; with --submit the folder records.",
            show_default=False,
        ),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Show points, jobs and node-hours; run nothing.")
    ] = False,
    until_oom: Annotated[
        str | None,
        typer.Option(
            help="Search the largest value of this option that fits: doubled until out of memory, "
            "then bisected to an eighth.",
            metavar="OPTION",
        ),
    ] = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="Try again what ran out of memory.")
    ] = False,
    submit: Annotated[
        bool,
        typer.Option(
            "--submit", help="As jobs of the machine's scheduler, an array for every node count."
        ),
    ] = False,
    budget: Annotated[
        float | None, typer.Option(help="Node-hours that the jobs submitted now may cost.", min=0)
    ] = None,
    submit_options: Annotated[
        str | None,
        typer.Option(help="For the command that submits, such as '-A PROJECT'.", metavar="OPTIONS"),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show the jobs until the last one has ended.")
    ] = False,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Take the jobs of this sweep out of the queue.")
    ] = False,
) -> None:
    """Measure a grid: here, one point after the other, or as jobs of a scheduler.

    The same command goes on wherever it was interrupted: a point measured with the same
    configuration, commit and versions is skipped (never where the tree has uncommitted changes), a
    job in the queue is not submitted again. Out of memory is recorded as an answer; what failed is
    recorded with its cause and tried again by the next call. Exit code 3 if any failed, 130 after
    Ctrl-C.

        hpcgeo-profile sweep profiles/local_vit_tiny.yaml --records records.jsonl

        hpcgeo-profile sweep profiles/demo.yaml --until-oom micro_batch

        hpcgeo-profile sweep profiles/frontier_vit.yaml --submit --plan

        hpcgeo-profile sweep profiles/frontier_vit.yaml --submit --budget 60 \
            --submit-options '-A PROJECT'

    Jobs go on when --watch is interrupted; --cancel takes them out of the queue.
    """
    set_up()
    of_jobs = {
        "--budget": budget is not None,
        "--submit-options": submit_options is not None,
        "--watch": watch,
        "--cancel": cancel,
    }
    refuse_without_submit(submit, of_jobs)
    from hpcgeo.sweep.points import load_sweep

    grid = load_sweep(file, overrides or [], until_oom)
    from hpcgeo.sweep import local as sweeps

    where = records or Path("records" if submit else "records.jsonl")
    try:
        if submit:
            action = "plan" if plan else "cancel" if cancel else "submit"
            from hpcgeo.sweep.jobs import Jobs

            jobs = Jobs(grid, where, file.stem, retry=retry)
            how = action, budget, submit_options or "", watch
            board = submitted(jobs, where / "lock", "sweep", *how)
        else:
            measure = sweeps.plan if plan else sweeps.run_sweep
            board = measure(grid, where, retry=retry)
    except sweeps.StoppedError as error:
        raise interrupted(error, where, submit) from None
    typer.echo(f"{board}\n{board.total}, in {where}")
    if board.counts()["failed"] and not plan:
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
    from hpcgeo.plan.links import bytes_of as in_bytes

    refuse_unwritable(records, "--records")
    refuse_unwritable(machine_file, "--machine-file")
    first_bytes, last_bytes = in_bytes(first), None if last is None else in_bytes(last)
    # torch is imported from here on: help and a refused size are instant.
    from hpcgeo.cli.ranks import ranked
    from hpcgeo.profiling.collectives import measure

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
            help="A key that may differ between A and B: device, machine, dtype, transport, "
            "options; repeatable. Versions and variables may without."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say which points of B are faster or slower than in A, or within noise.

    Points are matched by all that makes them alike but commit, versions and variables that change
    speed; of these a pair says what differs. Records of one point are repeats. Slower is a ratio of
    median step times above the tolerance whose confidence interval leaves out 1. The interval comes
    from the runs' medians where a side has several, else from blocks of consecutive steps: then it
    covers the noise within a run alone. Peak memory is compared with the same tolerance.

    Exit codes: 0 nothing is shown to be worse; 2 bad input, or no point is in both; 3 a point is
    slower, takes more memory, or fails where it did not.

        hpcgeo-profile compare before.jsonl after.jsonl

        hpcgeo-profile compare torch-2.7/ torch-2.13/ --json

        hpcgeo-profile compare float32/ bfloat16/ --between dtype
    """
    from hpcgeo.profiling import compare as module

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


@app.command(hidden=True)
def point(
    folder: Annotated[Path, typer.Argument(help="Of a job of a sweep.")],
    task: Annotated[int, typer.Argument(help="Number in its array.")],
    ended: Annotated[int | None, typer.Option(help="Exit code of the measurement before.")] = None,
) -> None:
    """Say what a job of a sweep measures next, a word a line; the job script calls it."""
    set_up()
    from hpcgeo.sweep.batch import JobBatch

    batch = JobBatch(folder)
    typer.echo("\n".join(batch.advance(task, ended)))
