"""What commands that submit jobs share: options of jobs; plan, submit, watch, cancel."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from hpcgeo.errors import InputError


def refuse_without_submit(submit: bool, of_jobs: Mapping[str, bool]) -> None:
    """Refuse options of jobs that were given without --submit; an InputError names them."""
    if not submit and any(of_jobs.values()):
        typed = ", ".join(name for name, given in of_jobs.items() if given)
        raise InputError(f"{typed}: for jobs of a scheduler: add --submit, or leave it out")


def interrupted(error: Any, where: Path, submit: bool) -> typer.Exit:
    """Say where an interrupted call stands and how it goes on; return its exit code to raise."""
    typer.echo(f"{error.board}\n{error.board.total}, in {where}")
    goes_on = "the jobs go on: look with --watch, end them with --cancel" if submit else ""
    typer.echo(f"interrupted; {goes_on or 'the same command goes on'}", err=True)
    return typer.Exit(130)


def submitted(
    jobs: Any, lock: Path, who: str, action: str, budget: float | None, options: str, watch: bool
) -> Any:
    """Plan, submit, watch or cancel jobs; return the table of what they do.

    Args:
        jobs: `hpcgeo.sweep.jobs.Jobs` or `hpcgeo.study.jobs.StudyJobs`.
        lock: held while they are looked at.
        who: holds it, for the message to another one.
        action: plan, submit or cancel.
        budget: node-hours that they may cost; None: ask.
        options: for the command that submits.
        watch: show them until the last one has ended.
    """
    from hpcgeo.sweep.local import alone

    if action == "plan":
        typer.echo(jobs.plan())
        if budget is not None:
            jobs.afford(budget)
        return jobs.board()
    with alone(lock, who):
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
