"""`hpcgeo evaluate`: one table of what runs reach on their tasks; on any number of ranks."""

import json
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from hpcgeo.cli.outputs import refuse_unwritable
from hpcgeo.launch.environment import discover

app = typer.Typer()

#: Those that are fitted in seconds to minutes.
QUICK = "knn,linear,forest"


class Split(str, Enum):
    """Splits of the data of a task."""

    test = "test"
    validation = "validation"


#: Options of commands that read a run.
Step = Annotated[int | None, typer.Option(help="Which checkpoint. [default: the newest]", min=0)]
Moved = Annotated[
    list[str] | None,
    typer.Option(metavar="[TASK=]PATH", help="Where the same data set lies now; repeatable."),
]


@app.command()
def evaluate(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs with tasks (run.dir).")],
    split: Annotated[Split, typer.Option(help="Which split of the data.")] = Split.test,
    step: Step = None,
    baselines: Annotated[
        str,
        typer.Option(
            metavar="NAME,...",
            help="knn, linear, forest, and of images resnet18 and unet, which take minutes "
            "on a GPU and hours on a CPU; or none.",
        ),
    ] = QUICK,
    out: Annotated[
        Path | None, typer.Option(help="Write the table to a file: .json, .csv or .md.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file that says something else.")
    ] = False,
    data: Moved = None,
    scores: Annotated[
        Path | None,
        typer.Option(
            help="Append a score of each run and task to a file of records (.jsonl), for the page "
            "of scores."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score runs on the tasks they were trained on, beside baselines and published figures.

    One row a task, one column a run, in brackets the 95 % confidence interval; the last lines say
    where each run loses, and where significantly. Tasks of one name must have the same data.
    Baselines are fitted to the training split that the first run with the task has, and kept in
    baselines.jsonl, beside the table or in the folder of the first run.

    Examples:

        hpcgeo evaluate runs/gpna_tiny

        hpcgeo evaluate runs/multi runs/scenes runs/series --out table.md

        hpcgeo evaluate runs/tuned runs/tuned_from_random --scores scores.jsonl

        torchrun --nproc-per-node 2 --no-python hpcgeo evaluate runs/multi --baselines none

    Every rank holds the whole model.
    """
    refuse_unwritable(out, "--out")
    refuse_unwritable(scores, "--scores")
    names = [] if baselines == "none" else [name.strip() for name in baselines.split(",")]

    def work() -> None:
        # torch is imported from here on: help is instant.
        from hpcgeo.evaluate import table as made

        table = made.evaluate(
            runs,
            split=split.value,
            step=step,
            baselines=names,
            out=out,
            force=force,
            moved=data or [],
            scores=scores,
        )
        if discover().rank:
            return
        if as_json:
            typer.echo(json.dumps(table, indent=2, ensure_ascii=False))
            return
        console = Console()
        if not console.is_terminal:
            console.width = 300  # into a pipe nothing is folded or cut off
        console.print(made.drawn(table))
        typer.echo("\n".join(table["behind"]))

    from hpcgeo.cli.ranks import ranked

    ranked(work)
