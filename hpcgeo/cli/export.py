"""`hpcgeo export`: the weights of a run for other libraries."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from hpcgeo.cli.evaluate import Moved, Step

app = typer.Typer()


class Library(str, Enum):
    """Whose names the weights are given."""

    safetensors = "safetensors"
    transformers = "transformers"
    timm = "timm"


class Dtype(str, Enum):
    """Of the values in the file."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run (its run.dir).")],
    to: Annotated[Library, typer.Option(help="Whose names the weights are given.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to create. [default: RUN/export/step-NNNNNNNN-LIBRARY]"),
    ] = None,
    step: Step = None,
    dtype: Annotated[Dtype, typer.Option(help="Of the values in the file.")] = Dtype.float32,
    data: Moved = None,
) -> None:
    """Write the weights of a run as one file for other libraries.

    One process without an accelerator does it, whatever number of ranks trained the run, and holds
    one tensor in memory at a time. It prints the line of Python that loads the result.

    Encoder and decoder under our own names; the file says the configuration of the run, its bands
    and how they are normalised:

        hpcgeo export runs/mae_vit_base --to safetensors

    Encoder and decoder as a ViTMAEForPreTraining, square chips only:

        hpcgeo export runs/mae_vit_base --to transformers --out vit_mae

    The encoder alone as a VisionTransformer, in half the bytes, from an older checkpoint:

        hpcgeo export runs/mae_vit_base --to timm --dtype bfloat16 --step 4000

    Both carry how the run prepares images: mean, deviation, crop, interpolation. What the library
    cannot express, as more than three bands or missing pixels, is a line of the output.

    A Perceiver, under our own names alone:

        hpcgeo export runs/gpna_tiny --to safetensors

    `hpcgeo train RECIPE model.weights=OUT` starts from an export for safetensors or transformers;
    a Perceiver takes its backbone, and every stem and head of equal name.

    Models with gated MLPs are known to neither transformers nor timm: choose safetensors for them.
    """
    # torch is imported from here on: help is instant.
    from hpcgeo.weights.export import export

    typer.echo(export(run, to.value, out, step, dtype.value, data or []))
