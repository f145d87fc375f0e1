"""Files of JSON lines, each a pydantic model: appended whole, read back, refused by line."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from hpcgeo.errors import InputError

Line = TypeVar("Line", bound=BaseModel)

#: Characters of a key that a message shows.
LONGEST_KEY = 200


class TornError(InputError):
    """A line that is no JSON, as a crash or a full disk leaves it."""


def append_line(path: Path, text: str) -> None:
    """Append one line to a file, in one write; a line torn before it stays alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        torn = size > 0 and file.read(1) != b"\n"
        file.write(b"\n" * torn + text.encode() + b"\n")
        os.fsync(file.fileno())


def lines(paths: Iterable[Path], patterns: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield place (``file:number``) and text of every line of files, and of folders by patterns.

    Raises:
        InputError: a file or folder is not there, holds no such file, or cannot be read.
    """
    for path in paths:
        if path.is_dir():
            files = [file for pattern in patterns for file in sorted(path.rglob(pattern))]
            if not files:
                raise InputError(f"{path}: no {' or '.join(patterns)} below this folder")
        elif path.is_file():
            files = [path]
        else:
            raise InputError(f"{path}: no such file or folder of records")
        for file in files:
            try:
                with file.open("rb") as opened:
                    for number, line in enumerate(opened, 1):
                        if line.strip():
                            yield f"{file}:{number}", line
            except OSError as error:
                raise InputError(f"{file}: {error.strerror}") from None


def parsed(
    kind: type[Line], line: bytes, place: str, newer: Callable[[str], None] | None = None
) -> Line:
    """Return the model of a line.

    Args:
        newer: told of each unknown field of a line of a newer `schema_minor`, which is then left
            out; None: unknown fields are an error.

    Raises:
        TornError: it is no JSON.
        InputError: it is of a newer `schema_version`, or not such a model.
    """
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
    if details[0]["type"] == "json_invalid":
        raise TornError(
            f"{place}: not JSON: {details[0]['msg'].removeprefix('Invalid JSON: ')}: give lines "
            f"that `hpcgeo profile` wrote"
        )
    values = _values(line)
    _refuse_newer(kind, values.get("schema_version"), place)
    unknown = [detail["loc"] for detail in details if detail["type"] == "extra_forbidden"]
    if newer and unknown and _is_newer(kind, values):
        for loc in unknown:
            holder: Any = values
            for step in loc[:-1]:
                holder = holder[step]
            del holder[loc[-1]]
            newer(".".join(str(step) for step in loc if isinstance(step, str)))
        return parsed(kind, json.dumps(values).encode(), place)
    key = ".".join(str(step) for step in details[0]["loc"])[:LONGEST_KEY]
    if unknown:
        raise InputError(f"{place}: not a record: unknown field {key}: leave it out")
    raise InputError(f"{place}: not a record: {key}: {details[0]['msg']}")


def _values(line: bytes) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):  # what pydantic reads and Python does not
        return {}
    return values if isinstance(values, dict) else {}


def _refuse_newer(kind: type[BaseModel], version: Any, place: str) -> None:
    known = kind.model_fields["schema_version"].default
    if type(version) is int and version > known:
        raise InputError(
            f"{place}: a record of version {version}, and this hpcgeo reads up to {known}: install "
            f"a newer hpcgeo"
        )


def _is_newer(kind: type[BaseModel], values: dict[str, Any]) -> bool:
    minor = values.get("schema_minor")
    field = kind.model_fields.get("schema_minor")
    return field is not None and type(minor) is int and minor > field.default
