"""`hpcgeo report`: records become the scaling report."""

from pathlib import Path
from typing import Annotated

import typer

from hpcgeo.errors import InputError

try:
    from hpcgeo_analysis.report import make
except ModuleNotFoundError as error:
    if error.name not in ("pandas", "matplotlib", "jinja2"):
        raise
    raise InputError(
        f"the report needs {error.name}: install it with `pip install 'hpcgeo[report]'`"
    ) from None

app = typer.Typer()


@app.command()
def report(
    records: Annotated[
        list[Path], typer.Argument(help="Files of records, or folders that hold some.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the report; an older one is replaced.")],
    run: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of a training run: show its loss and reconstructions; repeatable."
        ),
    ] = None,
) -> None:
    """Turn records into the scaling report: report.html, report.md, table.csv, figures/*.png.

    hpcgeo report profiles/records --out report

    hpcgeo report records.jsonl --run runs/mae_vit_tiny --out report
    """
    typer.echo(make(records, out, run or []))
