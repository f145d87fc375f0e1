"""`hpcgeo probe`: what a frozen encoder knows, by simple models fitted to its features."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from hpcgeo.cli.evaluate import Moved, Step
from hpcgeo.cli.outputs import refuse_unwritable
from hpcgeo.errors import InputError
from hpcgeo.launch.environment import discover

app = typer.Typer()


@app.command()
def probe(
    encoder: Annotated[
        str,
        typer.Argument(
            help="Folder of a run (run.dir) or of an export; or NAME:FILE, public weights "
            "(`hpcgeo list weights`)."
        ),
    ],
    on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]READER:PATH[:TARGET]",
            help="Labelled data to probe on; repeatable. [default: the tasks of the run]",
        ),
    ] = None,
    labels: Annotated[
        float, typer.Option(help="Fraction of the labels, of every class at least one.")
    ] = 1.0,
    shots: Annotated[
        int | None, typer.Option(min=1, help="Labels of each class, instead of a fraction.")
    ] = None,
    replicates: Annotated[
        int | None,
        typer.Option(help="Label subsets. [default: 5, and one of all labels]"),
    ] = None,
    model: Annotated[
        str, typer.Option(help="What is fitted: a row of `hpcgeo list protocols`.")
    ] = "linear",
    blocks: Annotated[
        str | None,
        typer.Option(metavar="N,...", help="Blocks to try. [default: six of the second half]"),
    ] = None,
    pooling: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="Poolings to try. [default: class,mean,all]"),
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=1, help="Pixels on a side of images. [default: the encoder's]")
    ] = None,
    normalise: Annotated[
        str, typer.Option(help="By the moments of: encoder, or data.", metavar="NAME")
    ] = "encoder",
    refit: Annotated[
        bool, typer.Option(help="Fit the choice to training and validation split at last.")
    ] = True,
    metric: Annotated[
        str | None, typer.Option(help="What is judged by. [default: the usual of the kind]")
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Rows of its data.tasks, also such that it never read. [default: what it read]",
        ),
    ] = None,
    step: Step = None,
    data: Moved = None,
    cache: Annotated[Path, typer.Option(help="Folder where features are kept.")] = Path(
        "hpcgeo-features"
    ),
    out: Annotated[
        Path | None, typer.Option(help="Append the scores to a file of records: .jsonl.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Fit simple models to the features of a frozen encoder: is it any good, without fine-tuning?

    The encoder is a ViT or a Perceiver of a run, or a ViT of an export or public weights; the data,
    what --on names, or the tasks of a run itself. Block, pooling and strength are chosen on the
    validation split, never on the one that is scored, and written down. Beside it stand the same
    model on features of random weights, and on the samples themselves. Features are computed once,
    on any number of ranks, and kept in --cache.

        hpcgeo probe dinov2_vits14:dinov2_vits14_pretrain.pth --on scenes:data/ucmerced

        hpcgeo probe runs/mae_vit_base --on scenes:data/ucmerced --shots 8 --model knn

        mpirun -n 4 hpcgeo probe runs/mae_vit_3b --on scenes:data/aid --out scores.jsonl

        hpcgeo probe runs/pretrained --labels 0.05 --tasks landcover,croptype
    """
    refuse_unwritable(out, "--out")
    if on and tasks is not None:
        raise InputError("--tasks has no effect with --on: name the data there")
    if normalise not in ("encoder", "data"):
        raise InputError(f"--normalise {normalise}: encoder, or data")
    if shots is not None and labels != 1.0:
        raise InputError(f"--labels {labels} and --shots {shots}: give one of them")
    if not 0 < labels <= 1:
        raise InputError(f"--labels {labels}: a fraction above 0, at most 1")
    moved = data or []

    def work() -> None:
        # torch is imported from here on: help is instant.
        from hpcgeo.evaluate.frozen import probe_on, together
        from hpcgeo.evaluate.probe_options import ProbeOptions
        from hpcgeo.evaluate.probed_data import data_set, own_sets
        from hpcgeo.scores import append

        options = ProbeOptions(
            protocol=model,
            blocks=_numbers(blocks),
            poolings=tuple(name.strip() for name in pooling.split(",")) if pooling else (),
            size=size,
            normalise="data" if normalise == "data" else "encoder",
            labels=shots if shots is not None else labels,
            replicates=replicates,
            refit=refit,
            metric=metric,
            cache=cache,
        )
        named = tasks.split(",") if tasks else ()
        sets = [data_set(text) for text in on] if on else own_sets(Path(encoder), named, moved)
        group = together(f"probe {encoder}")
        found = probe_on(encoder, sets, options, step=step, moved=moved, group=group)
        if discover().rank:
            return
        if out is not None:
            for score in found:
                append(out, score)
        if as_json:
            typer.echo(json.dumps([score.model_dump() for score in found], indent=2))
        else:
            _shown(_scores(found))

    from hpcgeo.cli.ranks import ranked

    ranked(work)


def _numbers(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(",")) if text else ()
    except ValueError:
        raise InputError(f"--blocks {text}: numbers of blocks, e.g. 9,12") from None


def _scores(scores: list[Any]) -> Table:
    """Return a table of scores: a line for each data set, and whose features."""
    first = scores[0]
    caption = (
        f"{first.split} split, {first.protocol}{_sizes(scores)}; in brackets the 95 % "
        f"confidence interval over resamples of the split; lead: of the encoder; labels: of "
        f"training + validation, on which {first.tried} settings were tried"
        + (" and both were fitted to at last" if first.refit else "")
        + (f"; means over {len(first.values)} label subsets" if len(first.values) > 1 else "")
    )
    table = Table(box=box.SIMPLE_HEAD, caption=caption, caption_justify="left")
    for column in ("task", "features", "metric", "n", "labels", "score", "lead", "chosen"):
        words = column in ("task", "features", "metric", "chosen")
        table.add_column(column, justify="left" if words else "right")
    leads: dict[str, Any] = {}
    for score in scores:
        leads = score.leads if score.whose == "encoder" else leads
        lead = leads.get(score.whose)
        table.add_row(
            *(score.task, score.whose, score.metric, f"{score.samples:,}"),
            f"{score.labels:,} + {score.validation_labels:,}",
            _interval(score.value, score.low, score.high),
            "" if lead is None else _interval(lead[0], lead[1], lead[2], "+"),
            ", ".join(_setting(name, value) for name, value in score.chosen[0].items()),
        )
    return table


def _sizes(scores: list[Any]) -> str:
    sizes = sorted({score.image_size for score in scores} - {None})
    return f", {', '.join(map(str, sizes))} px" if sizes else ""


def _setting(name: str, value: Any) -> str:
    if name == "features":
        return str(value)
    return f"{name} {value:g}" if isinstance(value, int | float) else f"{name} {value}"


def _interval(value: float | None, low: float | None, high: float | None, sign: str = "") -> str:
    if value is None:
        return "NaN"
    return f"{value:{sign}.3f}" + ("" if low is None else f" ({low:{sign}.3f} to {high:{sign}.3f})")


def _shown(table: Table) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = 300  # into a pipe nothing is folded or cut off
    console.print(table)
