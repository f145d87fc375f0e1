"""Pages of reference are what the declarations say: commands and record fields.

Regenerate with HPCGEO_GOLDEN=1, and read the difference; `tests/cli/test_options.py` holds options.
"""

import inspect
import os
from collections.abc import Callable
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from typer.models import ArgumentInfo, OptionInfo

from hpcgeo.cli.main import COMMANDS, app
from hpcgeo.data.readers.benchmarks.facts import benchmarks
from hpcgeo.measured import told
from hpcgeo.records import Record

#: The last paragraph of `hpcgeo --help`.
EXIT_CODES = (inspect.getdoc(app.registered_callback.callback) or "").split("\n\n")[-1]
DOCS = Path(__file__).parents[2] / "docs"
WRITTEN = "Written by `make golden` from the declarations in the code; never edited.\n\n"
#: Behind it a page is written from the facts.
TABLE = "## The data sets\n\n"
RECORDS = """# Record fields

A record is one JSON object a line: one point of a study, measured, published or failed, complete.
What was not measured is null, never zero. The schema is `hpcgeo/records.py` and
`hpcgeo/measured.py`.

## What the table does not say

- `data` `cached` (`--data synthetic`): every step trained on the first batches, cached in memory.
- Warm-up: as many steps as asked, and more until the median of five is no more than 5 % below that
  of the five before (at most 50; then `stable` is false), 4 at least. Metrics, checkpoints and
  pictures are outside of `step_s`, and the device is synchronised.
- Of a mixture `chip`, `bands`, `model_flops`, `mfu`, `hfu` are null: steps differ in their tokens.
- `wait` is told from how much longer than the last to come a rank spent in collectives: no two
  clocks are compared. A rank is late where the upper half of the ranks waits longer than it by more
  than 5 % of a step, in three steps of four; the latest is the straggler.
- `traffic`: conventions of nccl-tests. `activity`, `cross_check`: of three traced steps.
- `memory` is at the peak of one observed step, of the rank that holds most.
- `product_flops_per_s`: `--product` measures it on a device too.
- `environment` holds the variables of the table in `hpcgeo/variables.py`: a network's part the
  points of several nodes, those that may change speed mark a point, what launchers set counts for
  nothing.

## Fields

"""


def test_commands() -> None:
    text = f"# Commands\n\n{WRITTEN}`hpcgeo-profile` is `hpcgeo profile`. {EXIT_CODES}\n\n"
    for name, line in COMMANDS.items():
        text += f"## hpcgeo {name}\n\n{line}\n\n"
        inside = import_module(f"hpcgeo.cli.{name}").app
        alone = len(inside.registered_commands) == 1 and inside.registered_callback is None
        for command in inside.registered_commands:
            if command.hidden:
                continue
            words = f"hpcgeo {name}"
            if not alone:
                words += f" {command.name or command.callback.__name__}"
                text += f"### {words}\n\n"
            text += _described(words, command.callback)
    _current(DOCS / "commands.md", text.rstrip() + "\n")


def test_record_fields() -> None:
    rows = [
        f"| `{one.name}` | {one.unit} | {one.section} | {one.description} |\n"
        for one in told(Record).values()
    ]
    head = "| field | unit | section of the report | meaning |\n|---|---|---|---|\n"
    text = RECORDS.replace("## What", f"{WRITTEN}## What", 1) + head + "".join(rows)
    _current(DOCS / "records.md", text)


def test_benchmarks() -> None:
    """The page has a row for each public data set."""
    page = DOCS / "benchmarks.md"
    before = page.read_text("utf-8").partition(TABLE)[0]
    rows = [
        "| " + " | ".join(each.replace("|", "\\|") for each in cells) + " |\n"
        for row in benchmarks().values()
        for cells in [
            (f"`{row.name}`", row.title, row.kind, row.expected, row.stated_split, row.source)
        ]
    ]
    head = "| reader | data set | kind | expects | splits | source |\n|---|---|---|---|---|---|\n"
    _current(page, before + TABLE + WRITTEN + head + "".join(rows))


def _current(page: Path, text: str) -> None:
    if os.environ.get("HPCGEO_GOLDEN"):
        page.write_text(text, "utf-8")
    assert page.read_text("utf-8") == text


def _described(words: str, command: Callable[..., None]) -> str:
    """Return usage, help and a table of arguments and options of a command."""
    arguments, rows = [], []
    hints = get_type_hints(command, include_extras=True)
    for name, param in inspect.signature(command).parameters.items():
        info = next(one for one in hints[name].__metadata__ if hasattr(one, "param_decls"))
        needed = param.default is inspect.Parameter.empty
        shown = _argument if isinstance(info, ArgumentInfo) else _option
        said = shown(name, hints[name].__origin__, info)
        if isinstance(info, ArgumentInfo):
            arguments.append(said if needed else f"[{said}]")
        default = "to be given" if needed else _default(param.default)
        meaning = " ".join((info.help or "").split()).replace("|", "\\|")
        rows.append(f"| `{said}` | {default} | {meaning} |\n")
    usage = " ".join([words, *arguments, "[OPTIONS]"])
    head = "| argument, option | default | meaning |\n|---|---|---|\n"
    return f"```sh\n{usage}\n```\n\n{inspect.getdoc(command)}\n\n{head}{''.join(rows)}\n"


def _argument(name: str, kind: Any, info: ArgumentInfo) -> str:
    several = any(get_origin(one) is list for one in (kind, *get_args(kind)))
    return (info.metavar or name.upper()) + (" ..." if several else "")


def _option(name: str, kind: Any, info: OptionInfo) -> str:
    said = [one for one in (info.default, *(info.param_decls or [])) if isinstance(one, str)]
    names = ", ".join(said or [f"--{name.replace('_', '-')}"])  # typer's first is its default
    return names if kind is bool else f"{names} {info.metavar or _values(kind)}"


def _values(kind: Any) -> str:
    """Return what may stand after an option: choices, or the kind of value."""
    inner = [one for one in get_args(kind) if one is not type(None)]
    if get_origin(kind) is Literal:
        return "/".join(inner)
    if inner:
        return _values(inner[0])
    return "/".join(one.value for one in kind) if issubclass(kind, Enum) else kind.__name__.upper()


def _default(value: Any) -> str:
    if value is None or value is False or value == "":
        return ""
    return f"`{value.value if isinstance(value, Enum) else value}`"
