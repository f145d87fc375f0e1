"""Facts are tables in YAML: read one, find a row, say which rows there are when it is missing."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib.resources import files
from typing import Any, TypeVar

import yaml

from hpcgeo.errors import InputError

Row = TypeVar("Row")


def read(name: str) -> Any:
    """Return the parsed YAML of ``hpcgeo/facts/<name>.yaml``; `name` may hold a folder."""
    return yaml.safe_load(files("hpcgeo.facts").joinpath(f"{name}.yaml").read_text("utf-8"))


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the known name closest to `name`, or nothing."""
    found = get_close_matches(name, list(known), n=1)
    return f" (did you mean {found[0]!r}?)" if found else ""


def find(table: Mapping[str, Row], name: str, what: str) -> Row:
    """Return ``table[name]``.

    Args:
        table: rows by name.
        name: the row asked for.
        what: the kind of row, for the message ("model", "machine").

    Raises:
        InputError: `name` is not in the table; the message lists the known names.
    """
    if name not in table:
        raise InputError(
            f"unknown {what} {name!r}{nearest(name, table)}; known: {', '.join(table)}"
        )
    return table[name]
