"""`hpcgeo study`: pretrain several models, judge each alike, and put the scores on one page."""

from pathlib import Path
from typing import Annotated

import typer

from hpcgeo.cli import evaluate, probe, train
from hpcgeo.cli.submitting import interrupted, refuse_without_submit, submitted
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
        bool, typer.Option("--plan", help="Show steps, and node-hours at most; run nothing.")
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

        hpcgeo study studies/frontier_table3.yaml --submit --budget 500 --watch

        hpcgeo report runs/open_small/scores --out report
    """
    set_up()
    of_jobs = {
        "--budget": budget is not None,
        "--submit-options": submit_options is not None,
        "--watch": watch,
        "--cancel": cancel,
    }
    refuse_without_submit(submit, of_jobs)
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
            from hpcgeo.study.jobs import StudyJobs

            action = "plan" if plan else "cancel" if cancel else "submit"
            how = action, budget, submit_options or "", watch
            board = submitted(StudyJobs(folder), where / "lock", "study", *how)
        else:
            board = local.board(folder) if plan else local.run_study(folder)
    except StoppedError as error:
        raise interrupted(error, where, submit) from None
    typer.echo(f"{board}\n{board.total}, in {where}")
    if plan and not submit:
        study_file, left = folder.study, [one for one in folder.members if folder.left(one)]
        typer.echo(
            f"members: {len(left)} x {study_file.node_hours:g} = at most "
            f"{len(left) * study_file.node_hours:.4g} node-hours on {study_file.machine}, "
            f"{study_file.ranks} ranks a command; without --plan it begins"
        )
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
