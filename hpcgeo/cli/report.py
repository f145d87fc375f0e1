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
) -> None:
    """Turn records into the scaling report: report.html, report.md, table.csv, figures/*.png.

    Example: hpcgeo report profiles/records/testbed --out report
    """
    typer.echo(make(records, out))
