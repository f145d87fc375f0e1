"""`hpcgeo predict`: maps of whole scenes by a run; on any number of ranks."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from hpcgeo.cli.evaluate import Moved, Step
from hpcgeo.cli.outputs import refuse_unwritable

app = typer.Typer()


class What(str, Enum):
    """What a map shows."""

    classes = "class"
    probabilities = "probabilities"
    numbers = "numbers"


class PixelType(str, Enum):
    """Of the pixels of a map."""

    uint8 = "uint8"
    uint16 = "uint16"
    float32 = "float32"


#: Options of commands that read scenes.
Scenes = Annotated[
    list[str],
    typer.Argument(
        help="Files, folders, 'patterns*.tif', dates of one place as BEFORE,AFTER (files or "
        "folders), or a samples.yaml of several sensors."
    ),
]


Tile = Annotated[
    int | None,
    typer.Option(help="Side of a tile in pixels. [default: that of the chips in training]", min=1),
]
Batch = Annotated[int, typer.Option(help="Tiles that are answered together.", min=1)]
Sensor = Annotated[
    str | None, typer.Option(help="Whose bands the scenes hold, where the task knows several.")
]
Bands = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,...",
        help="Bands of the scenes in their order, - for one that is not read. [default: as the "
        "files name them]",
    ),
]
Dates = Annotated[
    str | None,
    typer.Option(
        metavar="DATE,...",
        help="Day, month or year of each date of a scene. [default: as the files say]",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Make anew what was made otherwise.")]


def words(text: str | None) -> tuple[str, ...] | None:
    """Return the parts of a list with commas; None: none was given."""
    return None if text is None else tuple(part.strip() for part in text.split(","))


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="Folder of a run with a task of pixels (run.dir).")],
    scenes: Scenes,
    out: Annotated[Path, typer.Option(help="Folder of the maps; what is there is not made again.")],
    task: Annotated[
        str | None, typer.Option(help="Which task of the run. [default: the only one of pixels]")
    ] = None,
    what: Annotated[
        What | None, typer.Option(help="What maps show. [default: class, of numbers numbers]")
    ] = None,
    dtype: Annotated[
        PixelType | None,
        typer.Option(help="Of their pixels. [default: uint8, of numbers float32]"),
    ] = None,
    overlap: Annotated[
        float, typer.Option(help="Fraction of a tile that neighbours share, 0 to 0.5.")
    ] = 0.25,
    tile: Tile = None,
    batch: Batch = 16,
    sensor: Sensor = None,
    bands: Bands = None,
    dates: Dates = None,
    step: Step = None,
    data: Moved = None,
    pictures: Annotated[bool, typer.Option(help="Draw each scene beside its map, as PNG.")] = True,
    force: Force = False,
) -> None:
    """Map whole scenes of any size by a run: segmentation, change, numbers of pixels.

    Scenes are cut into tiles that overlap and are prepared as in training; answers are blended and
    written as cloud-optimised GeoTIFF on the grid of the scene, its nodata kept. Probabilities are
    blended, not classes. A start that was stopped goes on where it was; a scene that cannot be read
    is named at the end (exit code 1), the others are mapped.

    Examples:

        hpcgeo predict runs/buildings scenes/ --out maps

        hpcgeo predict runs/gpna_open 2010.tif,2020.tif --task change --bands B5,B4,B3,B2 --out maps

        torchrun --nproc-per-node 2 --no-python hpcgeo predict runs/buildings scenes/ --out maps

    Maps have the same bytes on any number of ranks. Every rank holds the whole model.
    """
    refuse_unwritable(out, "--out", folder=True)

    def work() -> bool:
        # torch is imported from here on: help is instant.
        from hpcgeo.maps.bands import BandNames
        from hpcgeo.maps.layers import SceneWords
        from hpcgeo.maps.predict import MapOptions
        from hpcgeo.maps.predict import predict as made

        options = MapOptions(
            what=what.value if what else None,
            dtype=dtype.value if dtype else None,
            overlap=overlap,
            tile=tile,
            batch=batch,
            words=SceneWords(BandNames(sensor, words(bands)), words(dates)),
            pictures=pictures,
            force=force,
        )
        return made(run, scenes, out, options, task=task, step=step, moved=data or [])

    from hpcgeo.cli.ranks import ranked

    ranked(work)
