"""`hpcgeo embed`: features of whole scenes by a frozen encoder; on any number of ranks."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from hpcgeo.cli.evaluate import Moved, Step
from hpcgeo.cli.outputs import refuse_unwritable
from hpcgeo.cli.predict import Bands, Batch, Dates, Force, Scenes, Sensor, Tile, words

app = typer.Typer()


class Per(str, Enum):
    """What has a vector of its own."""

    chip = "chip"
    patch = "patch"


class TableFormat(str, Enum):
    """Of the file of chips."""

    parquet = "parquet"
    npz = "npz"


class Pooling(str, Enum):
    """Of the patches of a chip."""

    mean = "mean"
    token = "class"


@app.command()
def embed(
    encoder: Annotated[
        str,
        typer.Argument(
            help="Folder of a run (run.dir), an export for safetensors, or NAME:FILE of public "
            "weights (`hpcgeo list weights`)."
        ),
    ],
    scenes: Scenes,
    out: Annotated[
        Path, typer.Option(help="Folder of the features; what is there is not made again.")
    ],
    per: Annotated[Per, typer.Option(help="What has a vector of its own.")] = Per.chip,
    form: Annotated[
        TableFormat | None,
        typer.Option("--format", help="Of the file of chips. [default: parquet]"),
    ] = None,
    block: Annotated[
        int | None, typer.Option(help="Block after which they are taken. [default: the last]")
    ] = None,
    pool: Annotated[
        Pooling | None,
        typer.Option(help="Mean of the patches of a chip, or class token. [default: mean]"),
    ] = None,
    overlap: Annotated[
        float | None,
        typer.Option(help="Fraction of a tile that neighbours share, of patches. [default: 0.25]"),
    ] = None,
    tile: Tile = None,
    batch: Batch = 16,
    sensor: Sensor = None,
    bands: Bands = None,
    dates: Dates = None,
    step: Step = None,
    data: Moved = None,
    force: Force = False,
) -> None:
    """Write what a frozen encoder says of whole scenes: a vector for each chip, or each patch.

    Of chips a table for each scene (Parquet that GIS reads, or arrays of NumPy) with place, time,
    size of a pixel and the fingerprint of the encoder; of patches a cloud-optimised GeoTIFF, a band
    for each number, on the grid of the patches. A start that was stopped goes on; a scene that
    cannot be read is named at the end (exit code 1).

    Examples:

        hpcgeo embed runs/mae_vit_tiny scenes/ --out features

        hpcgeo embed dinov2_vits14:dinov2_vits14.safetensors scenes/ --per patch --out features

        srun hpcgeo embed runs/mae_vit_tiny scenes/ --format npz --out features
    """
    refuse_unwritable(out, "--out", folder=True)

    def work() -> bool:
        # torch is imported from here on: help is instant.
        from hpcgeo.maps.bands import BandNames
        from hpcgeo.maps.embed import EmbedOptions
        from hpcgeo.maps.embed import embed as made
        from hpcgeo.maps.layers import SceneWords

        options = EmbedOptions(
            per=per.value,
            form=form.value if form else None,
            block=block,
            pooling=pool.value if pool else None,
            overlap=overlap,
            tile=tile,
            batch=batch,
            words=SceneWords(BandNames(sensor, words(bands)), words(dates)),
            force=force,
        )
        return made(encoder, scenes, out, options, step=step, moved=data or [])

    from hpcgeo.cli.ranks import ranked

    ranked(work)
