"""`hpcgeo probe`: what a frozen encoder knows, by simple models fitted to its features."""

import json
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from hpcgeo.cli.evaluate import Moved, Split, Step
from hpcgeo.cli.outputs import refuse_unwritable
from hpcgeo.errors import InputError
from hpcgeo.launch.environment import discover

app = typer.Typer()


@app.command()
def probe(
    encoder: Annotated[
        str,
        typer.Argument(
            help="Folder of a run (run.dir) or of an export; with --on also NAME:FILE, public "
            "weights (`hpcgeo list weights`)."
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
        typer.Option(help="Label subsets. [default: 20, with --on 5, and one of all labels]"),
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
    cache: Annotated[Path, typer.Option(help="Folder where features are kept.")] = Path(
        "hpcgeo-features"
    ),
    out: Annotated[
        Path | None, typer.Option(help="Append the scores to a file of records: .jsonl.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Fit simple models to the features of a frozen encoder: is it any good, without fine-tuning?

    With --on: a ViT of a run, an export or public weights, on any labelled data. Block, pooling and
    strength are chosen on the validation split, never on the one that is scored, and written down.
    Beside it stand the same model on features of random weights, and on the samples themselves.
    Features are computed once, on any number of ranks, and kept in --cache.

        hpcgeo probe dinov2_vits14:dinov2_vits14_pretrain.pth --on scenes:data/ucmerced

        hpcgeo probe runs/mae_vit_base --on scenes:data/ucmerced --shots 8 --model knn

        mpirun -n 4 hpcgeo probe runs/mae_vit_3b --on scenes:data/aid --out scores.jsonl

    Without --on: a run, also of a Perceiver, on its own tasks that have a label, or several, for a
    whole sample; in one process.

        hpcgeo probe runs/pretrained

        hpcgeo probe runs/pretrained --labels 0.05 --tasks landcover,croptype
    """
    refuse_unwritable(out, "--out")
    given = {
        **{"--shots": shots, "--blocks": blocks, "--size": size, "--metric": metric, "--out": out},
        "--normalise": None if normalise == "encoder" else normalise,
        "--pooling": pooling,
        "--no-refit": None if refit else True,
    }
    if not on:
        if idle := [name for name, value in given.items() if value is not None]:
            raise InputError(f"{', '.join(idle)} has no effect without --on READER:PATH")
        _of_run(
            *(Path(encoder), split, step, labels, replicates, model, tasks, data or [], as_json)
        )
        return
    if tasks is not None:
        raise InputError("--tasks has no effect with --on: name the data there")
    if normalise not in ("encoder", "data"):
        raise InputError(f"--normalise {normalise}: encoder, or data")
    if shots is not None and labels != 1.0:
        raise InputError(f"--labels {labels} and --shots {shots}: give one of them")
    if not 0 < labels <= 1:
        raise InputError(f"--labels {labels}: a fraction above 0, at most 1")

    def work() -> None:
        # torch is imported from here on: help is instant.
        from hpcgeo.evaluate.frozen import probe_on, together
        from hpcgeo.evaluate.probe_options import ProbeOptions, data_set
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
            split=split.value,
            metric=metric,
            cache=cache,
        )
        sets = [data_set(text) for text in on]
        group = together(f"probe {encoder}")
        found = probe_on(encoder, sets, options, step=step, moved=data or [], group=group)
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
        f"{first.split} split, {first.image_size} px, {first.protocol}; in brackets the 95 % "
        f"confidence interval over resamples of the split; lead: of the encoder; labels: of "
        f"training + validation, on which {first.tried} settings were tried"
        + (" and both were fitted to at last" if first.refit else "")
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


def _setting(name: str, value: Any) -> str:
    if name == "features":
        return str(value)
    return f"{name} {value:g}" if isinstance(value, int | float) else f"{name} {value}"


def _interval(value: float | None, low: float | None, high: float | None, sign: str = "") -> str:
    if value is None:
        return "NaN"
    return f"{value:{sign}.3f}" + ("" if low is None else f" ({low:{sign}.3f} to {high:{sign}.3f})")


def _of_run(
    run: Path,
    split: Split,
    step: int | None,
    labels: float,
    replicates: int | None,
    model: str,
    tasks: str | None,
    moved: list[str],
    as_json: bool,
) -> None:
    """Probe a run on its own tasks."""
    from hpcgeo.evaluate import probe as made

    found = made.probe(
        run,
        split=split.value,
        step=step,
        labels=labels,
        replicates=replicates,
        model=model,
        tasks=tasks.split(",") if tasks else (),
        moved=moved,
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
        said = _interval(lead["value"], lead["low"], lead["high"], "+")
        table.add_row(
            row["task"], row["metric"], str(row["samples"]), str(row["labels"]), *cells, said
        )
    _shown(table)


def _shown(table: Table) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = 300  # into a pipe nothing is folded or cut off
    console.print(table)


def _several(values: list[float]) -> str:
    spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
    return f"{mean(values):.3f}{spread}"
