"""`hpcgeo probe`: what a frozen backbone knows, by simple models fitted to its latents."""

import json
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from hpcgeo.cli.evaluate import Moved, Split, Step

app = typer.Typer()


@app.command()
def probe(
    run: Annotated[Path, typer.Argument(help="Folder of a run on a mixture (run.dir).")],
    labels: Annotated[
        float, typer.Option(help="Fraction of the labels, of every class at least one.")
    ] = 1.0,
    replicates: Annotated[
        int | None,
        typer.Option(help="Label subsets of that size. [default: 20, and one of all labels]"),
    ] = None,
    model: Annotated[
        str, typer.Option(help="What is fitted: linear, knn, forest, or of an installed package.")
    ] = "linear",
    split: Annotated[Split, typer.Option(help="Which split is scored.")] = Split.test,
    tasks: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Rows of its data.tasks, also such that it never read. [default: what it read]",
        ),
    ] = None,
    step: Step = None,
    data: Moved = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Fit simple models to what the frozen backbone of a run says of its samples.

    A linear model (a ridge of numbers, a logistic regression of classes) or kNN
    read its latents: of the run, of weights that were never trained, and, beside them,
    the samples themselves. So pretraining is judged in seconds, without fine-tuning. For tasks
    with one label, or several, for a whole sample; in one process.

    Examples:

        hpcgeo probe runs/pretrained

        hpcgeo probe runs/pretrained --labels 0.05 --tasks landcover,croptype
    """
    # torch is imported from here on: help is instant.
    from hpcgeo.evaluate import probe as made

    found = made.probe(
        run,
        split=split.value,
        step=step,
        labels=labels,
        replicates=replicates,
        model=model,
        tasks=tasks.split(",") if tasks else (),
        moved=data or [],
    )
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    caption = f"{split.value} split; lead: with 95 % confidence interval over resamples of it"
    if found["replicates"] > 1:
        caption += f" and of {found['replicates']} label subsets; ± standard deviation over these"
    table = Table(box=box.SIMPLE_HEAD, caption=caption, caption_justify="left")
    for column in ("task", "metric", "n", "labels", *made.OF, "lead over random"):
        table.add_column(column, justify="left" if column in ("task", "metric") else "right")
    for row in found["rows"]:
        cells = [_several(row["values"][of]) for of in made.OF]
        lead = row["leads"]["random"]
        said = f"{lead['value']:+.3f} ({lead['low']:+.3f} to {lead['high']:+.3f})"
        table.add_row(
            row["task"], row["metric"], str(row["samples"]), str(row["labels"]), *cells, said
        )
    console = Console()
    if not console.is_terminal:
        console.width = 300  # into a pipe nothing is folded or cut off
    console.print(table)


def _several(values: list[float]) -> str:
    spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
    return f"{mean(values):.3f}{spread}"
