"""`hpcgeo list`: the facts as tables, or as JSON."""

import ast
import inspect
import json
from collections.abc import Callable
from dataclasses import asdict
from enum import Enum
from importlib.resources import files
from typing import Annotated, Any, Literal

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from hpcgeo.cli.options import options
from hpcgeo.config import recipes
from hpcgeo.data.readers.benchmarks.facts import benchmarks
from hpcgeo.data.readers.table import READERS
from hpcgeo.errors import InputError
from hpcgeo.machines import devices, machines
from hpcgeo.objectives.objective import IMAGES, TASKS
from hpcgeo.objectives.table import objectives
from hpcgeo.optimizers.table import optimizers
from hpcgeo.sensors import sensors
from hpcgeo.stacks import Stack
from hpcgeo.strategies import strategies
from hpcgeo.swin import SwinArchitecture
from hpcgeo.tables import loaded, nearest, plugins, read
from hpcgeo.weights.public import public
from hpcgeo.zoo import (
    Architecture,
    PerceiverArchitecture,
    architecture,
    architectures,
)

#: Models are compared on this: RGB chips of 224 pixels, activations in bfloat16; a Perceiver on
#: as many tokens as such a chip has patches of 16 pixels.
BANDS, CHIP, TOKENS, DTYPE_BYTES = 3, (224, 224), 196, 2

#: Too long for a table.
JSON_ONLY = ("source", "to_verify", "mean", "std", "expects")

#: What one line of a table says, in the order of its columns.
Columns = dict[str, Any]

app = typer.Typer()


def _encoder(stack: Stack, entry: str) -> str:
    shape = f"{stack.width} x {stack.depth}, {stack.heads} heads"
    return f"{shape}, {entry}, {stack.mlp} {stack.hidden}"


def _models() -> list[Columns]:
    installed = {name: loaded(entry) for name, entry in plugins("hpcgeo.models").items()}
    return [_model(name, row) for name, row in (architectures() | installed).items()]


def _model(name: str, row: Any) -> Columns:
    found: Columns = dict.fromkeys(["model", "parameters", "forward_flops", "activation_bytes"])
    if isinstance(row, Architecture):
        found["parameters"] = row.parameters(BANDS)
        found["forward_flops"] = row.forward_flops(BANDS, CHIP)
        found["activation_bytes"] = row.activation_bytes(CHIP, DTYPE_BYTES)
        found["encoder"] = _encoder(row.encoder, f"p {row.patch}")
    elif isinstance(row, SwinArchitecture):
        found["parameters"] = row.parameters(BANDS)
        found["forward_flops"] = row.forward_flops(BANDS, CHIP)
        depths, widths = ("-".join(map(str, each)) for each in (row.depths, row.widths))
        found["encoder"] = f"v{row.version}, widths {widths}, depths {depths}, window {row.window}"
    elif isinstance(row, PerceiverArchitecture):
        found["parameters"] = row.parameters
        found["forward_flops"] = row.forward_flops([TOKENS])
        found["activation_bytes"] = row.activation_bytes([TOKENS], DTYPE_BYTES)
        entry = f"{row.latents} latents of tokens of {row.context}"
        found["encoder"] = _encoder(row.stack, entry)
    else:
        found["encoder"] = row.family
    return found | {"model": name, "source": row.source}


def _machines() -> list[Columns]:
    rows = []
    for machine in machines().values():
        device = devices()[machine.device] if machine.device else None
        links = machine.links
        rows.append(
            {
                "machine": machine.name,
                "title": machine.title,
                "nodes": int(machine.nodes.value) if machine.nodes else None,
                "devices_per_node": int(machine.devices_per_node.value),
                "device": machine.device,
                "memory_gib": device.memory if device else None,
                "bf16_tflops": device.flops.get("bfloat16") if device else None,
                "node_gb_per_s": links.node.value if links.node else None,
                "out_gb_per_s": links.out.value if links.out else None,
                "scheduler": machine.scheduler,
                "to_verify": ", ".join(name for name, fact in machine.facts() if fact.verify),
            }
        )
    return rows


def _fields(row: Any, *names: str) -> Columns:
    found = {name: getattr(row, name) for name in names}
    return {n: ", ".join(map(str, v)) if isinstance(v, tuple) else v for n, v in found.items()}


def _strategies() -> list[Columns]:
    shards = "backend", "parameters", "gradients", "optimizer"
    return [
        {
            "strategy": row.name,
            **_fields(row, *shards),
            "gathered_again": row.reshard_after_forward,
            "pays_per_step": ", ".join(
                f"{one.name} {one.of} {one.over}" for one in row.collectives
            ),
            **_fields(row, "takes", "sentence"),
        }
        for row in strategies().values()
    ]


def _optimizers() -> list[Columns]:
    names = "block_bytes", "other_bytes", "whole_matrices", "takes", "source"
    return [{"optimizer": row.name, **_fields(row, *names)} for row in optimizers().values()]


def _weights() -> list[Columns]:
    installed = {name: loaded(entry) for name, entry in plugins("hpcgeo.weights").items()}
    return [
        {
            **_fields(row, "name", "model", "sensor", "bands", "unit", "size"),
            "patch": architecture(row.model).patch,
            **_fields(row, "licence", "mean", "std", "source"),
        }
        for row in (public() | installed).values()
    ]


def _recipes() -> list[Columns]:
    return [
        {"recipe": name, "description": text.partition("\n")[0].removeprefix("#").strip()}
        for name, text in recipes().items()
    ]


def _sensors() -> list[Columns]:
    return [
        {
            **{"sensor": sensor.name, "title": sensor.title, "band": band.name},
            **_fields(band, "wavelength_nm", "bandwidth_nm", "gsd_m"),
            "source": sensor.source,
        }
        for sensor in sensors().values()
        for band in sensor.bands
    ]


def _readers() -> list[Columns]:
    # The text of ours alone: some import GDAL.
    sources = {}
    for name, module in READERS.items():
        package, _, file = module.rpartition(".")
        sources[name] = files(package).joinpath(f"{file}.py").read_text("utf-8")
    layouts = {name: ast.get_docstring(ast.parse(text)) or "" for name, text in sources.items()}
    for name, row in benchmarks().items():
        layouts[name] = f"{row.title} (hpcgeo list benchmarks {name} --json)"
    for name, entry in plugins("hpcgeo.readers").items():
        layouts.setdefault(name, inspect.getdoc(loaded(entry)) or "")
    return [
        {"reader": name, "layout": text.partition("\n\n")[0].replace("\n", " ")}
        for name, text in layouts.items()
    ]


def _benchmarks() -> list[Columns]:
    return [
        {
            **_fields(row, "name", "title", "kind"),
            "classes": row.classes if isinstance(row.classes, int) else len(row.known) or None,
            "images": row.images,
            "sensor": row.sensor,
            "gsd_m": row.gsd_m if row.gsd_m > 0 else None,
            "splits": row.stated_split,
            "expects": row.expected,
            "source": row.source,
        }
        for row in benchmarks().values()
    ]


def _kinds() -> list[Columns]:
    # torch is imported for this table alone.
    from hpcgeo.kinds.metrics import suiting
    from hpcgeo.kinds.table import kinds

    return [
        {"kind": name, **_fields(kind, "title", "label"), "metrics": ", ".join(suiting(kind))}
        for name, kind in kinds().items()
    ]


def _protocols() -> list[Columns]:
    # torch is imported for this table, too.
    from hpcgeo.evaluate.protocols.table import protocols
    from hpcgeo.kinds.table import kinds

    return [
        {
            "protocol": name,
            "title": row.title,
            "kinds": ", ".join(each for each, kind in kinds().items() if row.suits(kind)),
        }
        for name, row in protocols().items()
    ]


#: How the options call the kinds of data.
IN_OPTIONS = {IMAGES: "data.path", TASKS: "data.tasks"}


def _objectives() -> list[Columns]:
    return [
        {
            "objective": name,
            "title": row.title,
            "data": ", ".join(key for each, key in IN_OPTIONS.items() if row.takes(each)),
            "backbones": "any" if row.backbones is None else ", ".join(row.backbones),
            "labels": row.labels,
            "exports": ", ".join(["safetensors", *row.exports]),
        }
        for name, row in objectives().items()
    ]


def _tasks() -> list[Columns]:
    columns = "metric", "gpna", "status_quo", "method"
    return [
        {"task": name, **{column: row.get(column) for column in columns}}
        for name, row in read("sustainbench")["tasks"].items()
    ]


def _options() -> list[Columns]:
    return [
        asdict(option) | {"default": "to be given" if option.default is None else option.default}
        for option in options()
    ]


#: Kind: the line under its table, and its rows.
TABLES: dict[str, tuple[str, Callable[[], list[Columns]]]] = {
    "models": (
        "encoder (width x depth, patch or latents, MLP) on one RGB image of 224 x 224, or on 196 "
        "tokens; bfloat16, no recompute",
        _models,
    ),
    "machines": (
        "memory and FLOP/s of one device, links one way; --json names what is still to verify",
        _machines,
    ),
    "strategies": (
        "none, group, world: over which ranks a thing is cut; takes: options of `parallel` that "
        "not every strategy has a use for",
        _strategies,
    ),
    "optimizers": (
        "optim.name; state in bytes of a parameter inside and outside of blocks; takes: options of "
        "`optim` that not every optimizer has a use for",
        _optimizers,
    ),
    "recipes": ("hpcgeo train RECIPE [KEY=VALUE ...]", _recipes),
    "sensors": ("an empty cell is not stated by the source", _sensors),
    "weights": (
        "public encoders: hpcgeo probe NAME:FILE --on ..., and model.name=MODEL model.weights=FILE",
        _weights,
    ),
    "readers": ("data.tasks.NAME.reader; targets are named where one is not known", _readers),
    "benchmarks": (
        "public data sets, each a reader by its name (data.tasks.NAME.reader); --json: what the "
        "folder is expected to hold, and the source",
        _benchmarks,
    ),
    "kinds": (
        "of task, as readers name them; metrics: data.tasks.NAME.metric, the first by default",
        _kinds,
    ),
    "protocols": (
        "hpcgeo probe --model: frozen, on kept features; kinds: of task that each is for",
        _protocols,
    ),
    "objectives": ("objective.name; exports: formats of hpcgeo export", _objectives),
    "tasks": (
        "of SustainBench: the figures of Table 1 of the GPNA paper; hpcgeo train "
        "gpna_sustainbench data.only=[TASK]",
        _tasks,
    ),
    "options": (
        "key=value after `hpcgeo train RECIPE`, or in its YAML. of: what it is for, empty for all; "
        "resume: may change when a run is resumed; neutral: points of a scaling study that differ "
        "in it are alike",
        _options,
    ),
}

#: What can be listed.
Listed = Enum("Listed", {name: name for name in TABLES})  # type: ignore[misc]


@app.command("list")
def show(
    kind: Annotated[Listed, typer.Argument(help="Which facts.")],
    prefix: Annotated[
        str, typer.Argument(help="Only rows whose name begins so, e.g. `train.`.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
) -> None:
    """Show the facts: models, machines, strategies, recipes, sensors, readers, options, ...."""
    if as_json and as_markdown:
        raise InputError("--json and --markdown: choose one")
    caption, rows_of = TABLES[kind.value]
    rows = [row for row in rows_of() if str(next(iter(row.values()))).startswith(prefix)]
    if not rows:
        names = {str(next(iter(row.values()))).partition(".")[0] for row in rows_of()}
        hint = nearest(prefix.rstrip("."), sorted(names))
        raise InputError(f"{kind.value} {prefix}: no row begins so{hint}; leave it out")
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    columns = [column for column in rows[0] if column not in JSON_ONLY]
    if as_markdown:
        lines = [columns, ["---"] * len(columns)]
        lines += [[_cell(row[column]).replace("|", "\\|") for column in columns] for row in rows]
        typer.echo(f"{caption}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
        return
    table = Table(box=box.SIMPLE_HEAD, caption=caption, caption_justify="left")
    for column in columns:
        number = any(isinstance(row[column], int | float) for row in rows)
        words = any(" " in str(row[column]) for row in rows)
        widest = max(len(_cell(row[column])) for row in rows)
        justify: Literal["left", "right"] = "right" if number else "left"
        table.add_column(
            column.replace("_", " "), justify=justify, min_width=0 if words else widest
        )
    for row in rows:
        table.add_row(*(_cell(row[column]) for column in columns))
    console = Console()
    if not console.is_terminal:
        console.width = 300  # into a pipe nothing is folded or cut off
    console.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)
