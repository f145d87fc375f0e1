"""`hpcgeo plan`: what to run on how many nodes, how long it takes, and whether it fits."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
import yaml
from rich import box
from rich.console import Console
from rich.table import Table

from hpcgeo.errors import InputError
from hpcgeo.files import write_text
from hpcgeo.log import set_up

if TYPE_CHECKING:
    from hpcgeo.plan.candidates import Candidate, PlanRequest
    from hpcgeo.records import Record

app = typer.Typer()

#: Points that a sweep measures to settle a doubt.
SETTLING = 3


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
        float | None, typer.Option(help="Images of an epoch, for the cost of it all.", min=1)
    ] = None,
    epochs: Annotated[float, typer.Option(help="How many.", min=0)] = 1,
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
    asked = _question(model, machine, nodes, objective, chip, bands, dtype, probe, calibration)
    asked = replace(asked, backend=backend, micro_batch=micro_batch, global_batch=global_batch)
    found = best_of_each(candidates(asked))
    best, figures = found[0], asked.figures
    assert figures is not None
    costs = [
        cost(samples * epochs, one.images_per_s, asked.where, nodes) if samples else None
        for one in found[:rows]
    ]
    if sweep is not None:
        write_text(sweep, _sweep(asked, model, found))
    written = _write_job(write_job, asked, model, objective, best) if write_job else []
    if as_json:
        ways = [answer.values(asked, one, c) for one, c in zip(found[:rows], costs, strict=True)]
        said = {"model": model, "machine": machine, "nodes": nodes, "calibration": figures.source}
        typer.echo(json.dumps(said | {"ways": ways}, indent=1))
        return
    typer.echo(answer.headline(asked, found))
    if costs[0]:
        typer.echo(answer.cost_line(costs[0]))
    for line in answer.warnings(asked, best):
        typer.echo(f"note: {line}")
    if sweep is not None:
        typer.echo(f"{sweep}: hpcgeo-profile sweep {sweep} measures what is in doubt")
    for line in written:
        typer.echo(line)
    table = Table(box=box.SIMPLE_HEAD)
    for name in answer.row(best):
        table.add_column(name, justify="left" if name in ("strategy", "memory") else "right")
    for one in found[:rows]:
        table.add_row(*answer.row(one).values())
    Console(width=None if Console().is_terminal else 170).print(table)
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

    refuse_unwritable(file, "--map")
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
    from hpcgeo.plan.cases import cases
    from hpcgeo.zoo import architecture

    where = machine_of(machine)
    key = "objective" if objective.startswith("{") else "objective.name"
    run = load("mae_vit_tiny", [f"model.name={model}", f"{key}={objective}"])
    chosen = objective_of(run.objective.name)(run.objective, run.seed)
    forms = chosen.forms(architecture(model), bands, (chip, chip))
    if forms is None:
        raise InputError(
            f"objective {run.objective.name} on {model} has no closed form: plan with another, or "
            f"measure a step (hpcgeo-profile run)"
        )
    figures = calibration_of(where, calibration)
    if probe is not None:
        found = [one for one in cases(_records([probe])) if one.where.name == where.name]
        if len(found) != 1:
            raise InputError(
                f"--probe {probe}: {len(found)} measured steps of {where.name} that can be "
                f"predicted: give one record of one node"
            )
        from hpcgeo.plan.calibrate import one_point

        figures = one_point(found[0], figures)
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


def _sweep(asked: "PlanRequest", model: str, found: "list[Candidate]") -> str:
    """Return the sweep that measures the best way and those nearest to it."""
    from hpcgeo.plan.answer import doubtful

    ways = [found[0], *(doubtful(found) or found[1:])][:SETTLING]
    values = {
        "recipe": "mae_vit_base",
        "steps": 30,
        "warmup": 10,
        "minutes": 15,
        "set": {
            "launch.machine": asked.where.name,
            "data.path": "synthetic",
            "model.name": model,
            "train.dtype": asked.dtype,
        },
        "nodes": [asked.nodes],
        "grid": {"points": [dict(_value(option) for option in one.options) for one in ways]},
    }
    head = "# The ways that a plan cannot tell apart, by `hpcgeo plan --sweep`."
    return f"{head}\n{yaml.safe_dump(values, sort_keys=False)}"


def _write_job(
    folder: Path, asked: "PlanRequest", model: str, objective: str, best: "Candidate"
) -> list[str]:
    """Write the recipe of a way and its job; return where they are and what is next."""
    from hpcgeo.config import EXTENDS, load, recipes
    from hpcgeo.launch import scripts

    options = yaml.safe_load(objective) if objective.startswith("{") else {"name": objective}
    name = f"{options['name']}_{Path(model).stem}"
    base = name if name in recipes() else "mae_vit_base"
    values: dict[str, dict[str, Any]] = {"run": {"dir": f"runs/{name}"}}
    for option in (f"model.name={model}", f"train.dtype={asked.dtype}", *best.options):
        key, value = _value(option)
        group, _, field = key.partition(".")
        values.setdefault(group, {})[field] = value
    if base != name or len(options) > 1:
        values["objective"] = options
    values["parallel"].setdefault("group_size", None)
    values["train"].setdefault("accumulate", 1)
    recipe = folder / f"{name}.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    head = f"# As planned for {asked.nodes} nodes of {asked.where.name} by `hpcgeo plan`.\n"
    write_text(recipe, head + yaml.safe_dump({EXTENDS: base} | values, sort_keys=False))
    load(str(recipe), [])
    hours = asked.where.hours(asked.nodes) or 1.0
    job = scripts.one_off(asked.where.name, str(recipe), asked.nodes, scripts.time_of(60 * hours))
    script = folder / scripts.file_name(job)
    scripts.write(script, scripts.render(job))
    return [f"{recipe}", f"{script}: hpcgeo jobs check {script} looks at it before the queue"]


def _value(option: str) -> tuple[str, str | int]:
    """Return key and value of an option, a number as such."""
    key, _, value = option.partition("=")
    return key, int(value) if value.isdigit() else value
