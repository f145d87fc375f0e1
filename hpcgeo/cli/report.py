"""`hpcgeo report`: records become the scaling report, scores the page of scores."""

from pathlib import Path
from typing import Annotated

import typer

from hpcgeo import machines
from hpcgeo.cli.outputs import refuse_unwritable
from hpcgeo.errors import InputError

try:
    from hpcgeo_analysis.report import make
except ModuleNotFoundError as error:
    if error.name != "jinja2":
        raise
    raise InputError(
        "the report needs jinja2: install it with `pip install 'hpcgeo[report]'`"
    ) from None

app = typer.Typer()


@app.command()
def report(
    records: Annotated[
        list[Path],
        typer.Argument(help="Files of records (and links), of scores, or folders that hold some."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the report; an older one is replaced.")],
    run: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of a training run: show its loss and reconstructions; repeatable."
        ),
    ] = None,
    together: Annotated[
        str,
        typer.Option(
            metavar="KEY,...",
            help="Lay lines over each other that differ in these keys, e.g. dtype,device, or hold "
            "scores against each other that do, e.g. labels; the page then says so.",
        ),
    ] = "",
    baseline: Annotated[
        str | None,
        typer.Option(
            help="Row of scores over which the others' average relative performance (ARP) is; by "
            "default the random weights, where there is one row of them."
        ),
    ] = None,
    grid: Annotated[
        str | None,
        typer.Option(
            help="Electricity grid of the CO2 of pretrainings, a row of facts/grids.yaml, or grams "
            "per kWh."
        ),
    ] = None,
) -> None:
    """Turn records into the scaling report: report.html, report.md, table.csv, figures/*.svg.

    Scores of `hpcgeo probe --on` become scores.html, scores.md, scores.csv; scores of unlike
    protocols share no column, unless --together asks for it.

    hpcgeo report profiles/records --out report

    hpcgeo report scores.jsonl --out report

    hpcgeo report scores --baseline dinov2_vits14 --grid france --out report

    hpcgeo report records.jsonl --run runs/mae_vit_tiny --out report

    hpcgeo report mine.jsonl profiles/records --together machine,device,kind --out report
    """
    refuse_unwritable(out, "--out", folder=True)
    keys = [key.strip() for key in together.split(",") if key.strip()]
    of_grid = None if grid is None else machines.grid(grid)
    for page in make(records, out, run or [], keys, baseline, of_grid):
        typer.echo(page)
