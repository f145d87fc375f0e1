"""`hpcgeo plan`: what to run on how many nodes, how long it takes, and whether it fits."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
import yaml
from rich import box
from rich.console import Console
from rich.table import Table

from hpcgeo.errors import InputError
from hpcgeo.files import write_text
from hpcgeo.log import set_up

if TYPE_CHECKING:
    from hpcgeo.plan.candidates import PlanRequest
    from hpcgeo.records import Record

app = typer.Typer()

#: Columns that the table takes, terminal or not.
WIDE = 124


@app.callback(invoke_without_command=True)
def plan(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Option(help="A row of hpcgeo list models, or a YAML file.")
    ] = None,
    machine: Annotated[
        str | None, typer.Option(help="A row of hpcgeo list machines, or a YAML file.")
    ] = None,
    nodes: Annotated[int | None, typer.Option(help="Full nodes of it.", min=1)] = None,
    objective: Annotated[
        str, typer.Option(help="Its name, or YAML as of `objective=` of hpcgeo train.")
    ] = "mae",
    chip: Annotated[int, typer.Option(help="Pixels on a side of an image.", min=1)] = 224,
    bands: Annotated[int, typer.Option(help="Of an image.", min=1)] = 3,
    dtype: Annotated[
        Literal["bfloat16", "float32"], typer.Option(help="Of the arithmetic.")
    ] = "bfloat16",
    backend: Annotated[
        Literal["native", "deepspeed"], typer.Option(help="Whose strategies.")
    ] = "native",
    micro_batch: Annotated[
        int | None, typer.Option(help="Images of a rank. [default: the best that fits]", min=1)
    ] = None,
    global_batch: Annotated[
        int | None, typer.Option(help="Images of a step. [default: whatever comes out]", min=1)
    ] = None,
    samples: Annotated[
        float | None,
        typer.Option(help="Images of an epoch, for the cost of it all.", min=1, max=1e15),
    ] = None,
    epochs: Annotated[float, typer.Option(help="How many, with --samples.", min=1e-6, max=1e9)] = 1,
    probe: Annotated[
        Path | None,
        typer.Option(help="Records of one measured run on one node: they fix the arithmetic."),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="A file of `hpcgeo plan calibrate`.")
    ] = None,
    rows: Annotated[int, typer.Option(help="Of the table.", min=1)] = 12,
    explain: Annotated[
        bool, typer.Option("--explain", help="Every term with its formula and source.")
    ] = False,
    sweep: Annotated[
        Path | None, typer.Option(help="Write the sweep that would settle what is in doubt.")
    ] = None,
    write_job: Annotated[
        Path | None,
        typer.Option(help="Write a recipe and its job script for the answer into this folder."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    map_file: Annotated[
        Path | None,
        typer.Option(
            "--map", help="Draw the best way of ViTs of 0.1 to 100 B on 1 to 8192 nodes (*.svg)."
        ),
    ] = None,
) -> None:
    """Say what to run before it waits in a queue: strategy, groups, recompute and micro-batch.

    Every way to run a model on so many nodes is timed, unit by unit, and held against the memory of
    a device; the answer comes first, with how sure it is. Seconds rest on a few figures of the
    machine that were fitted to measured steps (hpcgeo plan calibrate). No GPU and no torch is
    needed.

        hpcgeo plan --model vit_3b --machine frontier --nodes 32

        hpcgeo plan --model vit_15b --machine frontier --nodes 64 --samples 990000 --epochs 100

        hpcgeo plan --machine frontier --map frontier.svg

        hpcgeo plan --model vit_1b --machine jupiter --nodes 8 --probe records.jsonl --explain
    """
    if context.invoked_subcommand:
        return
    set_up()
    if map_file is not None:
        if model or nodes or sweep or write_job or as_json:
            raise InputError("--map draws a machine whole: it takes --machine alone")
        _map(machine, map_file)
        return
    needed = {"--model": model, "--machine": machine, "--nodes": nodes}
    if missing := [name for name, value in needed.items() if value is None]:
        raise InputError(f"{', '.join(missing)}: a plan needs it; see `hpcgeo plan --help`")
    assert model and machine and nodes
    from dataclasses import replace

    from hpcgeo.cli.outputs import refuse_unwritable
    from hpcgeo.plan import answer
    from hpcgeo.plan.candidates import best_of_each, candidates
    from hpcgeo.plan.pretraining import cost

    refuse_unwritable(sweep, "--sweep")
    refuse_unwritable(write_job, "--write-job", folder=True)
    asked = _question(model, machine, nodes, objective, chip, bands, dtype, probe, calibration)
    asked = replace(asked, backend=backend, micro_batch=micro_batch, global_batch=global_batch)
    found = best_of_each(candidates(asked))
    best, figures = found[0], asked.figures
    assert figures is not None
    costs = [
        cost(samples * epochs, one.images_per_s, asked.where, nodes) if samples else None
        for one in found[:rows]
    ]
    lines = list(answer.headline(asked, found))
    lines += [answer.cost_line(costs[0])] if costs[0] else []
    lines += [f"note: {line}" for line in answer.warnings(asked, best)]
    if sweep or write_job:
        from hpcgeo.sweep.planned import PlannedRun

        images = samples and samples * epochs
        planned = PlannedRun(asked, model, machine, objective, chip, images)
        lines += planned.write_sweep(sweep, found) if sweep else []
        lines += planned.write_job(write_job, best) if write_job else []
    if as_json:
        ways = [answer.values(asked, one, c) for one, c in zip(found[:rows], costs, strict=True)]
        said = {"model": model, "machine": machine, "nodes": nodes, "calibration": figures.source}
        typer.echo(json.dumps(said | {"said": lines, "ways": ways}, indent=1))
        return
    typer.echo("\n".join(lines))
    table = Table(box=box.SIMPLE_HEAD)
    for name in answer.row(best):
        left = name in ("strategy", "memory")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    for one in found[:rows]:
        table.add_row(*answer.row(one).values())
    Console(width=max(Console().width, WIDE)).print(table)
    if explain:
        for line in answer.explained(asked, best, figures):
            typer.echo(line)


@app.command()
def calibrate(
    records: Annotated[list[Path], typer.Argument(help="Files or folders of records.")],
    machine: Annotated[str, typer.Option(help="Whose records are taken.")],
    models: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="Of these models alone.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="Of the records that are taken.")] = "bfloat16",
    out: Annotated[
        Path | None, typer.Option(help="Write the figures, for `hpcgeo plan --calibration`.")
    ] = None,
) -> None:
    """Fit the figures of a machine to measured steps, and say how well they are known.

    Records of one node say how fast it computes; several sizes, layouts and numbers of nodes say
    what its network does, and what the figures miss.

        hpcgeo plan calibrate runs/ --machine frontier --out frontier.calibration.yaml
    """
    set_up()
    import numpy as np

    from hpcgeo.cli.outputs import refuse_unwritable
    from hpcgeo.machines import machine as machine_of
    from hpcgeo.plan.calibrate import calibrate as fit
    from hpcgeo.plan.calibrate import deviation, scored
    from hpcgeo.plan.calibration import FAR, FITTED
    from hpcgeo.plan.cases import cases

    refuse_unwritable(out, "--out")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
    where, only = machine_of(machine), models.split(",") if models else None
    kept = [
        record
        for record in _records(records)
        if record.machine == where.name and record.dtype == dtype
        if only is None or record.model in only
    ]
    found = cases(kept)
    fitted = fit(found, where, f"{len(found)} measured steps of {where.name}")
    figures = fitted.figures
    typer.echo(f"{len(kept)} records of {where.name}, {len(found)} steps that can be predicted")
    for name in FITTED:
        loose = " (not identified)" if name in fitted.loose else ""
        typer.echo(
            f"{name:14} {getattr(figures, name):>8.4g} +- {figures.deviations[name]:.2g}{loose}"
        )
    one, other, much = fitted.worst_pair
    typer.echo(f"told apart worst: {one} and {other}, correlation {much:+.2f}")
    sizes = np.array([abs(deviation(case, figures)) for case in found if scored(case)])
    if len(sizes):
        typer.echo(
            f"{len(sizes)} steps that do not stand out of their line: mean deviation "
            f"{sizes.mean():.1%}, nine of ten below {np.quantile(sizes, 0.9):.1%}"
        )
    for name, size in fitted.left_out.items():
        typer.echo(f"without {name}: predicted to {size:.1%}, mean")
    for pattern, one_interval in figures.interval.items():
        near, far = (
            f"{low:.3g} to {high:.3g}" for low, high in (one_interval.near, one_interval.far)
        )
        typer.echo(f"{pattern}: eight of ten took {near} x as predicted to {FAR} nodes, then {far}")
    if out is not None:
        write_text(out, yaml.safe_dump(figures.model_dump(mode="json"), sort_keys=False))
        typer.echo(f"written: {out}")


def _map(machine: str | None, file: Path) -> None:
    """Draw the map of a machine."""
    if machine is None:
        raise InputError("--map needs --machine: whose map it is")
    from hpcgeo.cli.outputs import refuse_unwritable
    from hpcgeo.machines import machine as machine_of
    from hpcgeo.plan.sizes import cells
    from hpcgeo_analysis.plan_map import draw, title

    if file.suffix != ".svg":
        raise InputError(f"--map {file}: it is drawn as SVG: name it *.svg")
    refuse_unwritable(file, "--map")
    file.parent.mkdir(parents=True, exist_ok=True)
    where = machine_of(machine)
    found = list(cells(where))
    write_text(file, draw(found, where.title))
    typer.echo(f"{title(found)}\n{file}")


def _question(
    model: str,
    machine: str,
    nodes: int,
    objective: str,
    chip: int,
    bands: int,
    dtype: Literal["bfloat16", "float32"],
    probe: Path | None,
    calibration: Path | None,
) -> "PlanRequest":
    """Return what is asked, with the figures that it is answered by."""
    from hpcgeo.config import load
    from hpcgeo.machines import machine as machine_of
    from hpcgeo.objectives.table import objective as objective_of
    from hpcgeo.plan.calibration import calibration_of
    from hpcgeo.plan.candidates import PlanRequest
    from hpcgeo.zoo import architecture

    where, said = machine_of(machine), objective.strip()
    key = "objective" if said.startswith("{") else "objective.name"
    try:
        run = load("mae_vit_tiny", [f"model.name={model}", f"data.chip={chip}", f"{key}={said}"])
    except InputError as error:
        raise _without_recipe(error) from None
    chosen = objective_of(run.objective.name)(run.objective, run.seed)
    try:
        forms = chosen.forms(architecture(model), bands, (chip, chip))
    except InputError as error:
        raise _without_recipe(error) from None
    if forms is None:
        raise InputError(
            f"objective {run.objective.name} on {model} has no closed form: plan with another, or "
            f"measure a step (hpcgeo-profile run)"
        )
    figures = calibration_of(where, calibration)
    if probe is not None:
        from hpcgeo.plan.cases import cases

        found = [one for one in cases(_records([probe])) if one.where.name == where.name]
        if len(found) != 1:
            raise InputError(
                f"--probe {probe}: {len(found)} measured steps of {where.name} that can be "
                f"predicted: give one record of one node"
            )
        from hpcgeo.plan.calibrate import one_point

        figures = one_point(found[0], figures, dtype)
    return PlanRequest(forms, where, nodes, dtype, figures=figures)


def _records(paths: list[Path]) -> "list[Record]":
    """Return the records of files, and of all below folders."""
    from hpcgeo.records import read

    files = [
        file
        for path in paths
        for file in (sorted(path.rglob("records*.jsonl")) if path.is_dir() else [path])
    ]
    return read(files)


def _without_recipe(error: InputError) -> InputError:
    """Return an error in the words of this command."""
    said = str(error).removeprefix("mae_vit_tiny: ").replace("set data.chip to", "take --chip")
    return InputError(said.replace("; set it in the recipe or as", "; give it in --objective, as"))
