"""`hpcgeo jobs`: render job scripts, and look at them before the queue."""

from pathlib import Path
from typing import Annotated

import typer

from hpcgeo.config import load
from hpcgeo.errors import InputError
from hpcgeo.launch import scripts
from hpcgeo.launch.look import look
from hpcgeo.log import set_up
from hpcgeo.quoting import terminal
from hpcgeo.train.preflight import job_problems

app = typer.Typer(no_args_is_help=True)


@app.callback()
def jobs() -> None:
    """Render job scripts from the facts of machines; check them before the queue."""


@app.command()
def render(
    names: Annotated[
        list[str] | None, typer.Argument(help="Shipped jobs; all of them if none is named.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the scripts.")] = Path("jobs"),
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 if a script differs.")
    ] = False,
    machine: Annotated[
        str | None,
        typer.Option(help="Print a script for this machine (with --recipe, --nodes and --time)."),
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="What such a script trains.")] = None,
    nodes: Annotated[int | None, typer.Option(help="On how many nodes.")] = None,
    time: Annotated[str | None, typer.Option(help="For how long, HH:MM:SS.")] = None,
) -> None:
    """Write the shipped job scripts, or print one for another machine, recipe or size."""
    parts = {"--machine": machine, "--recipe": recipe, "--nodes": nodes, "--time": time}
    typed = [name for name, value in parts.items() if value is not None]
    if typed:
        if too_much := [*(names or []), *(["--check"] if check else [])]:
            raise InputError(
                f"{', '.join(too_much)}: for shipped jobs: leave {typed[0]} out, or it"
            )
        if missing := [name for name, value in parts.items() if value in (None, "")]:
            raise InputError(f"{', '.join(typed)}: one script needs {', '.join(missing)} too")
        assert machine and recipe and nodes is not None and time
        text = scripts.render(scripts.one_off(machine, recipe, nodes, time))
        load(recipe, ["run.dir=runs"])  # an unknown recipe is told here, not on the machine
        typer.echo(text, nl=False)
        return
    stale = False
    for name in names or scripts.jobs():
        job = scripts.job(name)
        path, text = out / scripts.file_name(job), scripts.render(job)
        if check:
            same = path.exists() and path.read_text("utf-8") == text
            stale |= not same
            typer.echo(f"{path}: {'same' if same else 'differs'}")
        else:
            typer.echo(f"{path}: {'written' if scripts.write(path, text) else 'unchanged'}")
    if stale:
        typer.echo("run `hpcgeo jobs render`", err=True)
        raise typer.Exit(1)


@app.command()
def check(
    script: Annotated[Path, typer.Argument(help="A script of `hpcgeo jobs render`.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Options of the run, as after the script.")
    ] = None,
    nodes: Annotated[
        int | None, typer.Option(help="As at submission. [default: the script's]", min=1)
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="As at submission, HH:MM:SS. [default: the script's]")
    ] = None,
) -> None:
    """Look at a job before it waits: its files, options, data set, memory, queue, run folder.

    On a login node, in seconds, without torch where the data are images:

        DATA=sets/photos hpcgeo jobs check JOB train.steps=2000

    Exit codes: 0 nothing found; 2 something is wrong, a line for each on standard error.
    """
    looked = look(script, overrides or [])
    time = time or looked.asked.time
    try:
        hours = scripts.hours_of(time)
    except ValueError as error:
        raise InputError(f"time {time}: {error}") from None
    found, told = job_problems(looked, nodes or looked.asked.nodes, hours)
    for line in found:
        typer.echo(terminal(line), err=True)
    if found:
        raise typer.Exit(2)
    typer.echo("\n  ".join([f"{script}: all is there; submit it", *told]))


@app.command(hidden=True)
def step(
    folder: Annotated[Path, typer.Argument(help="Of a job of a study.")],
    task: Annotated[int, typer.Argument(help="Number in its array.")],
    ended: Annotated[int | None, typer.Option(help="Exit code of the step before.")] = None,
) -> None:
    """Say what a job of a study does next, a word a line; its script calls it."""
    set_up()
    from hpcgeo.study.jobs import advance

    typer.echo("\n".join(advance(folder, task, ended)))
