"""The scaling report: records in; HTML, Markdown, CSV and figures out."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    pandas = _pandas()
    from io import StringIO

    from hpcgeo_analysis import export, reading
    from hpcgeo_analysis.comparisons import compare
    from hpcgeo_analysis.points import points

    loaded = reading.load([Path(path) for path in paths])
    if loaded.newer:
        log.warning("fields of a newer version, left out: %s", ", ".join(sorted(loaded.newer)))
    if not loaded.records:
        raise InputError("no records there; `load_scores` reads scores")
    found = points(loaded.records)
    return pandas.read_csv(StringIO(export.table(compare(found, ()), found, loaded.records)))


def load_scores(paths: Iterable[Path | str]) -> "pandas.DataFrame":
    """Return scores as a table, for a notebook.

    Args:
        paths: files or folders of scores.

    Returns:
        A row for each score that counts, with the columns of scores.csv. Missing is NaN.

    Raises:
        InputError: pandas is not installed, no scores, or a line that is not a score.

    Example:
        >>> load_scores(["scores.jsonl"]).pivot(index="name", columns="column", values="value")
        ... # doctest: +SKIP
    """
    pandas = _pandas()
    from io import StringIO

    from hpcgeo_analysis import reading
    from hpcgeo_analysis.scores import board, table

    found = reading.load([Path(path) for path in paths]).scores
    if not found:
        raise InputError(
            "no scores there; `hpcgeo probe ENCODER --on READER:PATH --out` writes them"
        )
    return pandas.read_csv(StringIO(table.as_csv(board.board(found))))


def _pandas() -> Any:
    try:
        import pandas
    except ModuleNotFoundError:
        raise InputError(
            "a table of records needs pandas: install it with `pip install 'hpcgeo[report]'`"
        ) from None
    return pandas
