"""`hpcgeo data`: build, inspect and verify data sets."""

from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from hpcgeo.data.readers.collection import SPLITS
from hpcgeo.data.shards import executors
from hpcgeo.data.shards.build import SKIPPED, Outcome
from hpcgeo.data.shards.build import build as build_set
from hpcgeo.data.shards.dataset import ShardDataset
from hpcgeo.data.shards.diversity import READ, Origin, origins
from hpcgeo.data.shards.generated_scenes import write_scenes
from hpcgeo.data.shards.index import Index, load
from hpcgeo.data.shards.index import verify as verify_set
from hpcgeo.data.shards.settings import Compression, Settings
from hpcgeo.data.shards.sources import passed_over
from hpcgeo.errors import InputError
from hpcgeo.launch.schedulers.table import started
from hpcgeo.log import log, set_up
from hpcgeo.quoting import grouped

app = typer.Typer(
    rich_markup_mode="markdown",
    no_args_is_help=True,
    help="Build, inspect and verify data sets.",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A data set.")]


@app.command()
def build(
    src: Annotated[Path, typer.Argument(metavar="SRC", help="Folder of JPEG, PNG and TIFF files.")],
    out: Annotated[Path, typer.Option(help="Folder of the data set; an unfinished one goes on.")],
    chip: Annotated[int, typer.Option(help="Height and width of a chip in pixels.")] = 256,
    overlap: Annotated[int, typer.Option(help="Pixels that neighbouring chips share.")] = 0,
    min_valid: Annotated[
        float, typer.Option(help="Chips with a smaller fraction of valid pixels are dropped.")
    ] = 0.5,
    bands: Annotated[
        str | None, typer.Option(help="Names of the bands in every file, e.g. red,green,blue,nir.")
    ] = None,
    sensor: Annotated[
        str | None, typer.Option(help="Sensor of every file: a row of `hpcgeo list sensors`.")
    ] = None,
    nodata: Annotated[
        float | None, typer.Option(help="Value of missing pixels in files that state none.")
    ] = None,
    shard_mib: Annotated[
        int, typer.Option(help="MiB of pixels in a shard file, and in the memory of a worker.")
    ] = 512,
    compression: Annotated[
        Compression, typer.Option(help="Of the pixels; none reads fastest.")
    ] = "none",
    workers: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
) -> None:
    """Turn a folder of images or scenes into HDF5 shard files with an index.

    Scenes are cut into chips; photographs in class subfolders keep the class as their label. Files
    that cannot be used are skipped, one line each, and listed in skipped.csv (exit code 3). A
    build that was stopped goes on with the same command.

    Examples:

        hpcgeo data build photos/ --out sets/photos --workers 8

        hpcgeo data build scenes/ --out sets/s2 --sensor sentinel2 --chip 224 --overlap 32

        srun --mpi=pmix -n 64 hpcgeo data build scenes/ --out sets/s2 --sensor sentinel2
    """
    set_up()
    names = None if bands is None else tuple(bands.split(","))
    settings = Settings(chip, overlap, min_valid, shard_mib, compression, names, sensor, nodata)

    def work(over: executors.Map) -> int:
        return _report(out, build_set(src, out, settings, over))

    try:
        own = started()
        code = executors.run(work, workers, own.counts[1] if own else 1)
    except BrokenProcessPool:
        typer.echo(
            "hpcgeo: a worker was killed (out of memory?); run the same command again to go on, "
            "with fewer --workers",
            err=True,
        )
        code = 1
    except OSError as error:
        typer.echo(f"hpcgeo: {error.filename or out}: {error.strerror or error}", err=True)
        code = 1
    raise typer.Exit(code)


def _report(out: Path, outcome: Outcome) -> int:
    index = outcome.index
    if outcome.others:
        typer.echo(f"passed over, not read: {passed_over(outcome.others)}")
    if index is None:
        log.error(
            "%d shard files could not be written; when that is mended, the same command goes on",
            outcome.num_failed,
        )
        return 1
    dropped = sum(layout.dropped for layout in index.layouts.values())
    full = [name for name, layout in index.layouts.items() if layout.samples]
    typer.echo(
        f"{out}: {index.samples} samples in {', '.join(full)}; {dropped} mostly empty "
        f"chips dropped; {_size(index.bytes)}"
    )
    if index.skipped:
        typer.echo(f"{index.skipped} of {index.sources} files skipped: see {out / SKIPPED}")
    return 3 if index.skipped else 0


@app.command()
def info(
    folder: Folder,
    json: Annotated[bool, typer.Option("--json", help="Print the index as JSON.")] = False,
    entropy: Annotated[
        bool,
        typer.Option("--entropy", help="How diverse images are, by the folder they come from."),
    ] = False,
    layout: Annotated[
        str | None, typer.Option(help="Of --entropy: which layout, where several differ.")
    ] = None,
) -> None:
    """Say what is inside: counts, bands with mean and standard deviation, classes, bytes.

    Examples:

        hpcgeo data info sets/photos

        hpcgeo data info sets/geopile --entropy
    """
    index = load(folder)
    if layout and not entropy:
        raise InputError(f"--layout {layout}: of --entropy alone: give it too")
    if entropy:
        set_up()
        _show_origins(origins(ShardDataset(folder, layout)))
        return
    if json:
        typer.echo(index.model_dump_json(indent=2))
        return
    _show(folder, index)


def _show_origins(found: Sequence[Origin]) -> None:
    table = Table()
    for column in ("folder", "samples", "share", "bits", "together"):
        table.add_column(column, justify="left" if column == "folder" else "right")
    for one in found:
        share = f"{one.samples / found[-1].samples:.1%}"
        table.add_row(
            one.name, f"{one.samples:,}", share, f"{one.entropy:.2f}", f"{one.together:.2f}"
        )
    Console(markup=False).print(table)
    typer.echo(
        f"bits: entropy of the grey levels of an image, a mean over at most {READ:,} of a folder; "
        f"together: of all their pixels"
    )


def _show(folder: Path, index: Index) -> None:
    console = Console(markup=False)
    typer.echo(
        f"{folder}: {index.samples} samples of {index.chip} x {index.chip} pixels from "
        f"{index.sources - index.skipped} files ({index.skipped} skipped), {_size(index.bytes)}",
    )
    for name, layout in index.layouts.items():
        if not layout.samples:
            continue
        nodata = "NaN" if layout.dtype.startswith("float") else layout.nodata
        typer.echo(
            f"\n{name}: {layout.samples} samples, {layout.dropped} mostly empty chips "
            f"dropped, {len(layout.shards)} shard file(s); sensor {layout.sensor or 'unknown'}, "
            f"nodata {nodata}"
        )
        columns = {"mean": layout.mean, "std": layout.std}
        if layout.scale and layout.offset:
            columns |= {"scale": layout.scale, "offset": layout.offset}
        table = Table("band")
        for column in columns:
            table.add_column(column, justify="right")
        for band, *values in zip(layout.bands, *columns.values(), strict=True):
            table.add_row(band, *map(_number, values))
        console.print(table)
    if index.classes:
        table = Table("class")
        table.add_column("samples", justify="right")
        for name, count in index.classes.items():
            table.add_row(name, str(count))
        console.print(table)


@app.command()
def verify(folder: Folder) -> None:
    """Check every file against its checksum; exit code 1 names those damaged or missing.

    Example:

        hpcgeo data verify sets/photos
    """
    index = load(folder)
    problems = grouped(verify_set(folder, index))
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        raise typer.Exit(1)
    shards = sum(len(layout.shards) for layout in index.layouts.values())
    typer.echo(f"{folder}: {shards} shard files, {_size(index.bytes)}, all as they were written")


@app.command()
def synthesize(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the scenes.")],
    scenes: Annotated[int, typer.Option(min=1, help="How many.")] = 8,
    size: Annotated[int, typer.Option(min=16, help="Height and width in pixels.")] = 1024,
    seed: Annotated[int, typer.Option(min=0, help="Other seeds, other scenes.")] = 0,
    classes: Annotated[
        bool, typer.Option("--classes", help="In folders by class: country and town.")
    ] = False,
) -> None:
    """Write generated scenes (RGB GeoTIFF: fields, rivers, roads, buildings) to try things on.

    Example:

        hpcgeo data synthesize scenes/ --scenes 4 && hpcgeo data build scenes/ --out sets/made
    """
    paths = write_scenes(out, scenes, size, seed, classes=classes)
    typer.echo(f"{len(paths)} scenes of {size} x {size} pixels in {out}")


@app.command("duplicates")
def find_duplicates(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Folder or file of labelled data.")],
    reader: Annotated[str, typer.Option(help="A row of `hpcgeo list readers`.")],
    out: Annotated[Path, typer.Option(help="The list of pairs, JSON.")] = Path("duplicates.json"),
    target: Annotated[
        str | None, typer.Option(help="Which label, where the data has several.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="As data.tasks.NAME.size: of images that are cut into chips.")
    ] = None,
    split_by_place: Annotated[
        float | None, typer.Option(help="As data.tasks.NAME.split_by_place.")
    ] = None,
    bits: Annotated[
        int, typer.Option(min=0, max=20, help="Of 64, in which hashes of the same may differ.")
    ] = 6,
    workers: Annotated[int, typer.Option(min=1, help="Threads that read images.")] = 1,
) -> None:
    """Find samples of different splits that show the same: by their looks, and by their place.

    Looks are a perceptual hash of 64 bits; of a place are two images whose centres are nearer than
    they are wide. The list is for training: data.tasks.NAME.leave_out=duplicates.json trains on
    none of the pairs. Exit code 3 where there are any.

    Examples:

        hpcgeo data duplicates scene_ucmerced/ --reader scenes

        hpcgeo train gpna_open data.tasks.landuse.leave_out=duplicates.json
    """
    set_up()
    # torch is imported for this command alone.
    from hpcgeo.data import duplicate_list, duplicates
    from hpcgeo.data.labelled import LabelledSplit, open_tasks

    more = {"target": target, "patch": 1, "size": size, "split_by_place": split_by_place}
    tasks = open_tasks(reader, path, split="train", **more)  # type: ignore[arg-type]
    assert isinstance(tasks, LabelledSplit)
    splits = tasks.splits
    looks = duplicates.looks_of(tasks.collection, workers)
    ways = {
        "by their looks": duplicates.alike(looks, splits, bits),
        "by their place": duplicates.close_by(looks, splits),
    }
    for way, pairs in ways.items():
        for (first, second), number in duplicates.counted(pairs, splits).items():
            typer.echo(f"{number} pairs of {first} and {second} are the same {way}")
    pairs = [pair for each in ways.values() for pair in each]
    listed = duplicate_list.DuplicateList(tasks.fingerprint, len(splits), split_by_place, pairs)
    duplicate_list.write(out, listed)
    counts = ", ".join(f"{(splits == split).sum()} {split}" for split in SPLITS)
    typer.echo(f"{len(pairs)} pairs across the splits of {path} ({counts}): {out}")
    raise typer.Exit(3 if pairs else 0)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"


def _size(num_bytes: int) -> str:
    value, unit = float(num_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.1f} {unit}"
