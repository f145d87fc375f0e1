"""The scaling report: records in; HTML, Markdown, CSV and figures out."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from hpcgeo.errors import InputError
from hpcgeo.log import log

if TYPE_CHECKING:
    import pandas


def load(paths: Iterable[Path | str]) -> "pandas.DataFrame":
    """Return the points of records as a table, for a notebook.

    Args:
        paths: files or folders of records.

    Returns:
        A row for each point (repeats joined) and for each failure; the columns are those of the
        report's table.csv: what is alike in a comparison (machine, model, dtype, ...), `layout`,
        `devices`, sizes of batches, rates per second, times in `_s`, memory in `_bytes`, weak and
        strong efficiency, MFU, and every other declared field (docs/records.md). Missing is NaN.

    Raises:
        InputError: pandas is not installed, no records, or a line that is not a record.

    Example:
        >>> load(["profiles/records"]).groupby("layout").images_per_s.max()  # doctest: +SKIP
    """
    try:
        import pandas
    except ModuleNotFoundError:
        raise InputError(
            "a table of records needs pandas: install it with `pip install 'hpcgeo[report]'`"
        ) from None
    from io import StringIO

    from hpcgeo_analysis import export, reading
    from hpcgeo_analysis.comparisons import compare
    from hpcgeo_analysis.points import points

    records, _, _, newer = reading.load([Path(path) for path in paths])
    if newer:
        log.warning("fields of a newer version, left out: %s", ", ".join(sorted(newer)))
    found = points(records)
    return pandas.read_csv(StringIO(export.table(compare(found, ()), found, records)))
