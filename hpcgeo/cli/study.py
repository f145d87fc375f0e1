"""`hpcgeo study`: pretrain several models, judge each alike, and put the scores on one page."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from hpcgeo.cli import evaluate, probe, train
from hpcgeo.errors import InputError
from hpcgeo.log import set_up

app = typer.Typer()


@app.command()
def study(
    file: Annotated[Path, typer.Argument(help="What is compared, as in studies/*.yaml.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of runs, scores and jobs. [default: runs/ and the file's name]"),
    ] = None,
    place: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PATH", help="Where a place of the study lies; repeatable."),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Show steps, jobs and node-hours; run nothing.")
    ] = False,
    submit: Annotated[
        bool, typer.Option("--submit", help="As jobs of the machine's scheduler, one a member.")
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
        bool, typer.Option("--cancel", help="Take the jobs of this study out of the queue.")
    ] = False,
) -> None:
    """Pretrain several models, judge each by probes and fine-tuning, and compare them.

    A study names what is pretrained (sizes, objectives, durations), public weights that stand
    beside, and what judges them. Each member runs its steps in order: here, one after the other, or
    as a job. All options are checked before the first step; the same command goes on wherever it
    was interrupted, and a step that failed is tried again. Exit code 3 if any failed, 130 after
    Ctrl-C.

        hpcgeo study studies/open_small.yaml --place scenes=data/ucmerced --plan

        hpcgeo study studies/open_small.yaml --place scenes=data/ucmerced

        hpcgeo study studies/frontier_table3.yaml --submit --budget 500 \
            --submit-options '-A PROJECT'

        hpcgeo report runs/open_small/scores --out report
    """
    set_up()
    of_jobs = {
        "--budget": budget is not None,
        "--submit-options": submit_options is not None,
        "--watch": watch,
        "--cancel": cancel,
    }
    if not submit and any(of_jobs.values()):
        typed = ", ".join(name for name, given in of_jobs.items() if given)
        raise InputError(f"{typed}: for jobs of a scheduler: add --submit, or leave it out")
    places = dict(_place(text) for text in place or [])
    from hpcgeo.study import local
    from hpcgeo.sweep.local import StoppedError

    where = out or Path("runs") / file.stem
    folder = local.open_study(file, where, places)
    for member in folder.members:
        for step in folder.left(member):
            _check(step.words)
    try:
        if submit:
            action = "plan" if plan else "cancel" if cancel else "submit"
            board = _submitted(folder, action, budget, submit_options or "", watch)
        else:
            board = local.board(folder) if plan else local.run_study(folder)
    except StoppedError as error:
        typer.echo(f"{error.board}\n{error.board.total}, in {where}")
        goes_on = "the jobs go on: look with --watch, end them with --cancel" if submit else ""
        typer.echo(f"interrupted; {goes_on or 'the same command goes on'}", err=True)
        raise typer.Exit(130) from None
    typer.echo(f"{board}\n{board.total}, in {where}")
    if board.counts()["done"]:
        typer.echo(f"next: hpcgeo report {where / 'scores'} --out {where / 'report'}")
    if board.counts()["failed"] and not plan:
        raise typer.Exit(3)


def _place(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not equals or not path:
        raise InputError(f"--place {text}: NAME=PATH, a name of `places` in the study")
    return name, path


def _check(words: tuple[str, ...]) -> None:
    """Refuse words that their command would refuse; nothing is run."""
    apps = {"train": train.app, "probe": probe.app, "evaluate": evaluate.app}
    name, *rest = words
    typer.main.get_command(apps[name]).make_context(f"hpcgeo {name}", list(rest))


def _submitted(folder: Any, action: str, budget: float | None, options: str, watch: bool) -> Any:
    """Plan, submit, watch or cancel the jobs of a study; return the table of its steps."""
    from hpcgeo.study.jobs import StudyJobs
    from hpcgeo.sweep.local import alone

    jobs = StudyJobs(folder)
    if action == "plan":
        typer.echo(jobs.plan())
        return jobs.board()
    with alone(folder.out / "lock", "study"):
        jobs.settle()
        if action == "cancel":
            typer.echo(f"{jobs.cancel()} tasks cancelled")
            return jobs.board()
        if jobs.planned:
            typer.echo(jobs.plan())
            if budget is None:
                if not sys.stdin.isatty():
                    raise InputError(
                        f"the jobs may take {jobs.node_hours:.4g} node-hours: allow them with "
                        f"--budget"
                    )
                typer.confirm(f"Submit them ({jobs.node_hours:.4g} node-hours)?", abort=True)
                budget = jobs.node_hours
            jobs.submit(budget, options)
    if watch:
        return jobs.watch()
    if jobs.queued:
        typer.echo("the same command shows how far they are; --watch waits, --cancel ends them")
    return jobs.board()
