"""Facts are tables in YAML: read one, find a row, say which rows there are when it is missing.

YAML that is not ours is read by `own`, or by `parse` where it is no file, and held to a form by
`checked`.
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from hpcgeo.errors import InputError

Row = TypeVar("Row")

#: Characters of a value that a message repeats.
LONGEST = 200


def read(name: str) -> Any:
    """Return the parsed YAML of ``hpcgeo/facts/<name>.yaml``; `name` may hold a folder."""
    return yaml.safe_load(files("hpcgeo.facts").joinpath(f"{name}.yaml").read_text("utf-8"))


class _Plain(yaml.SafeLoader):
    """YAML of plain values. Without aliases: ten lines of them stand for a billion values."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            alias = self.peek_event()  # type: ignore[no-untyped-call]
            raise self._refusal("an alias (*name): write the value out", alias)
        return super().compose_node(parent, index)

    def construct_yaml_int(self, node: Any) -> int:
        value = super().construct_yaml_int(node)
        if not -(2**63) <= value < 2**63:
            raise self._refusal("an integer beyond 64 bits", node)
        return value

    def construct_yaml_str(self, node: Any) -> str:
        value: str = super().construct_yaml_str(node)
        if "\0" in value or (not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value)):
            raise self._refusal("a character that no name can hold", node)
        return value

    def _refusal(self, what: str, where: Any) -> yaml.YAMLError:
        return yaml.MarkedYAMLError(problem=f"found {what}", problem_mark=where.start_mark)


_Plain.add_constructor("tag:yaml.org,2002:int", _Plain.construct_yaml_int)
_Plain.add_constructor("tag:yaml.org,2002:str", _Plain.construct_yaml_str)


def parse(text: str, name: str) -> Any:
    """Return the values of a YAML text that anyone may have written.

    Args:
        text: the YAML.
        name: of its file, for the message.

    Raises:
        InputError: it is no YAML, or not of plain values.
    """
    loader = None
    try:
        loader = _Plain(text)
        return loader.get_single_data()
    except RecursionError:
        raise InputError(f"{name}: not YAML that can be read: nested too deeply") from None
    except yaml.YAMLError as error:
        raise InputError(f"{name}: not YAML: {error}") from None
    except (ValueError, KeyError, AttributeError) as error:
        # PyYAML: the 99th month, `!!bool maybe`, `!!timestamp today`
        raise InputError(f"{name}: not YAML: a value is not of its type: {error}") from None
    finally:
        if loader is not None:
            loader.dispose()


def own(path: Path, what: str) -> Any:
    """Return the values of a YAML file of the user's own.

    Args:
        path: of the file.
        what: it is, for the message ("machine").

    Raises:
        InputError: it cannot be read, is no YAML, or not of plain values.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise InputError(f"{what} {path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{what} {path}: not a text file in UTF-8") from None
    return parse(text, f"{what} {path}")


def checked(form: type[Row], values: Any, name: str) -> Row:
    """Return values as what `form` says they are.

    Raises:
        InputError: they are not; a line for each place, with its value and the rule.
    """
    try:
        return TypeAdapter(form).validate_python(values)
    except ValidationError as error:
        lines = []
        for detail in error.errors():
            place = ".".join(map(str, detail["loc"]))[:LONGEST]
            value = "" if detail["type"] == "missing" else f" = {brief(detail['input'])}"
            rule = detail["msg"].removeprefix("Value error, ")
            lines.append(": ".join([name, *([place + value] if place else []), rule]))
        raise InputError("\n".join(lines)) from None


def brief(value: Any) -> str:
    """Return a value as a message shows it: what is long is cut."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


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
            f"unknown {what} {brief(name)}{nearest(name, table)}; known: {', '.join(table)}"
        )
    return table[name]


def plugins(group: str) -> dict[str, EntryPoint]:
    """Return the entry points of a group, by name: what installed packages add to a table."""
    return {entry.name: entry for entry in entry_points(group=group)}


def loaded(entry: EntryPoint) -> Any:
    """Return what an entry point names; an InputError where it cannot be imported."""
    try:
        return entry.load()
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"entry point {entry.name!r} of {entry.group}: {error}; mend or uninstall its package"
        ) from error


def find_open(
    table: Mapping[str, Row], group: str, name: str, what: str, known: Iterable[str] = ()
) -> Row:
    """Return a row of a table that installed packages may add to.

    Args:
        table: our rows by name.
        group: of the entry points that are further rows, imported when asked for.
        name: the row asked for.
        what: the kind of row, for the message.
        known: further names, for the message.

    Raises:
        InputError: nobody has that name; the message lists the known ones and says how to add one.
    """
    if name in table:
        return table[name]
    added = plugins(group)
    if name in added:
        return loaded(added[name])
    known = [*table, *known, *added]
    raise InputError(
        f"unknown {what} {brief(name)}{nearest(name, known)}; known: {', '.join(known)}; a package "
        f"adds one by an entry point of the group {group}"
    )
