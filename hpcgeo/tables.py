"""Facts are tables in YAML: read one, find a row, say which rows there are when it is missing.

YAML that is not ours is read by `own`, or by `parse` where it is no file, and held to a form by
`checked`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from hpcgeo.errors import InputError

Row = TypeVar("Row")

#: Characters of a value that a message repeats.
LONGEST = 200
#: How pydantic calls it that a group of values was expected, and something else found.
GROUPS = ("model_type", "model_attributes_type", "dict_type")
#: How it calls a type among several, at the end of the place of an error.
_TRIED = re.compile(r"(literal|constrained-|function-|is-instance|tuple|list|dict)[\[\w-]|none$")


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

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise self._refusal(f"the key {key.value} twice, of which one would be lost", key)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)

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
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        said = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InputError(f"{name}{where}: not YAML: {said}") from None
    except (ValueError, KeyError, AttributeError) as error:
        # PyYAML: the 99th month, `!!bool maybe`, `!!timestamp today`
        raise InputError(f"{name}: not YAML: a value is not of its type: {error}") from None
    finally:
        if loader is not None:
            loader.dispose()


def own(path: Path, what: str, way_out: str = "") -> Any:
    """Return the values of a YAML file of the user's own.

    Args:
        path: of the file.
        what: it is, for the message ("machine").
        way_out: what the message says where it cannot be read.

    Raises:
        InputError: it cannot be read, is no YAML, or not of plain values.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise InputError(f"{what} {path}: {error.strerror}{way_out}") from None
    except UnicodeDecodeError:
        raise InputError(f"{what} {path}: not a text file in UTF-8") from None
    return parse(text, f"{what} {path}")


def checked(form: type[Row], values: Any, name: str) -> Row:
    """Return the values of a file as what `form` says they are.

    Raises:
        InputError: they are not; a line for each value that breaks a rule.
    """
    try:
        return TypeAdapter(form).validate_python(values)
    except ValidationError as error:
        raise InputError(f"{name}: {broken_rules(error, form)}") from None


def brief(value: Any) -> str:
    """Return a value as a message shows it: what is long is cut."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


@cache
def _aliases() -> dict[str, list[str]]:
    return {_plain(word): names for word, names in read("aliases").items()}


def _plain(name: str) -> str:
    return re.sub("[-_. ]", "", name.casefold())


def same(name: str, known: Iterable[str]) -> list[str]:
    """Return the known names that `name` is another word for.

    Those that are spelled so but for case, hyphens, underscores and dots; else those of
    facts/aliases.yaml; else the dotted ones that end so.
    """
    known, asked = list(known), _plain(name)
    spelled = [each for each in known if _plain(each) == asked]
    others = [each for each in _aliases().get(asked, ()) if each in known]
    dotted = (each for each in known if "." in each)
    return spelled or others or [e for e in dotted if _plain(e.rpartition(".")[2]) == asked]


def close(name: str, known: Iterable[str]) -> list[str]:
    """Return the known name closest to `name`, if one is close; case does not count."""
    spelled = {each.casefold(): each for each in known}
    return [spelled[each] for each in get_close_matches(name.casefold(), spelled, n=1)]


def did_you_mean(found: Sequence[str]) -> str:
    """Return ``" (did you mean 'x'?)"``, or nothing where nothing was found."""
    return f" (did you mean {' or '.join(map(repr, found))}?)" if found else ""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the known name that `name` may mean, or nothing."""
    known = list(known)
    return did_you_mean(same(name, known) or close(name, known))


def place_of(detail: Mapping[str, Any]) -> list[str]:
    """Return where an error of pydantic lies, without the types that it tried there."""
    steps = [str(step) for step in detail["loc"]]
    return list(takewhile(lambda step: not _TRIED.match(step), steps))


def rule_of(detail: Mapping[str, Any]) -> str:
    """Return which rule of pydantic a value breaks, and which of its choices may be meant."""
    rule = str(detail["msg"]).removeprefix("Value error, ").replace("valid tuple", "list: [a, b]")
    if detail["type"] != "literal_error":
        return rule
    return rule + nearest(str(detail["input"]), re.findall(r"'([^']+)'", rule))


def broken_rules(error: ValidationError, form: type) -> str:
    """Return a line for each value that breaks a rule: key, value, rule."""
    lines: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        key, value = ".".join(place_of(detail)), brief(detail["input"])
        if detail["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            known = (
                list(getattr(form, "__pydantic_fields__", ())) if len(detail["loc"]) == 1 else []
            )
            more = f"; known: {', '.join(known)}" if known else ""
            lines[key] = f"unknown key {brief(key)}{nearest(key, known)}{more}"
        elif detail["type"] == "missing":
            lines[key] = f"{key} is missing: write it"
        elif detail["type"] in GROUPS:
            lines[key] = f"{key or 'the file'} = {value}: keys and values are needed"
        elif key in lines:
            lines[key] += f", or {rule_of(detail)}"
        else:
            lines[key] = (f"{key} = {value}: " if key else "") + rule_of(detail)
    return "\n".join(lines.values())


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
