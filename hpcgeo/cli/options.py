"""Every option of a run with type, default and description, as `hpcgeo list options` shows it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import Tag

from hpcgeo.config import RunConfig
from hpcgeo.objectives.objective import ObjectiveOptions
from hpcgeo.objectives.table import objectives
from hpcgeo.options import OptionGroup


@dataclass(frozen=True)
class Option:
    """An option of a run, as it is listed.

    Attributes:
        key: dotted, as in ``key=value``; ``NAME`` stands for a name of one's own.
        type: what it may be.
        default: as YAML writes it; None: it has to be given.
        of: for which kind of data, objective, backbone or strategy it is; empty: for all.
        resume: whether it may change when a run is resumed.
        neutral: whether points of a scaling study that differ in it are alike.
    """

    key: str
    type: str
    default: str | None
    description: str
    of: str
    resume: bool
    neutral: bool


def options() -> list[Option]:
    """Return every option of a run, in the order of its file."""
    return list(_listed(RunConfig))


def _listed(part: type[OptionGroup], prefix: str = "", of: str = "") -> Iterator[Option]:
    free, neutral, only = (part.marked(mark) for mark in ("free_on_resume", "neutral", "only"))
    for name, field in part.model_fields.items():
        kinds = _kinds(field.annotation, nested=prefix.startswith("objective."))
        for kind, (inner, entries) in kinds.items():
            applies = f"{prefix}{name}: {kind}" if kind else of
            yield from _listed(inner, f"{prefix}{name}{entries}.", applies)
        tag = get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1
        if not kinds and not tag:
            default = None if field.is_required() else _yaml(field.default)
            yield Option(
                key=prefix + name,
                type=_type(field.annotation),
                default=default,
                description=field.description or "",
                of=", ".join(filter(None, [of, only.get(name, "")])),
                resume=name in free,
                neutral=name in neutral,
            )


def _kinds(annotation: Any, nested: bool) -> dict[str, tuple[type[OptionGroup], str]]:
    """Return the parts that may stand in a place, by kind, each with the key before its options.

    Those of an objective inside of another are listed once, where it stands alone.
    """
    if get_origin(annotation) is dict and issubclass(get_args(annotation)[1], OptionGroup):
        return {"": (get_args(annotation)[1], ".NAME")}
    if annotation is ObjectiveOptions or get_args(annotation)[:1] == (ObjectiveOptions,):
        if nested:
            return {}
        rows = {name: (row.Options, "") for name, row in objectives().items()}
        return {"": (ObjectiveOptions, ""), **rows}
    tagged = {arm.__metadata__[0].tag: arm for arm in get_args(annotation) if _is_tagged(arm)}
    if tagged:
        return {tag: (get_args(arm)[0], "") for tag, arm in tagged.items()}
    is_part = isinstance(annotation, type) and issubclass(annotation, OptionGroup)
    return {"": (annotation, "")} if is_part else {}


def _is_tagged(arm: Any) -> bool:
    return isinstance(getattr(arm, "__metadata__", [None])[0], Tag)


def _type(annotation: Any) -> str:
    """Return a type in words: ``integer``, ``list of 2 numbers``, ``native, deepspeed or null``."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return ", ".join(map(str, arguments))
    if origin in (Union, UnionType):
        *others, last = map(_type, arguments)
        return f"{', '.join(others)} or {last}"
    if origin is tuple:
        inner = _type(arguments[0])
        return f"list of {inner}s" if Ellipsis in arguments else f"{len(arguments)} {inner}s"
    return _TYPES[annotation]


_TYPES = {
    int: "integer",
    float: "number",
    bool: "true, false",
    str: "text",
    Path: "path",
    type(None): "null",
    ObjectiveOptions: "an objective",
}


def _yaml(value: Any) -> str:
    plain = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(plain, default_flow_style=True).removesuffix("\n...\n").strip()
