"""The commands `hpcgeo` and `hpcgeo-profile`; a subcommand's module loads when it is called."""

import errno
import os
import re
import sys
from importlib import import_module, metadata
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from hpcgeo import __version__
from hpcgeo.errors import InputError
from hpcgeo.launch.environment import leave_exit_code
from hpcgeo.quoting import terminal
from hpcgeo.tables import nearest

#: Subcommand: its module below hpcgeo.cli, and the line of help. Kept here so that `hpcgeo --help`
#: imports none of them; every module offers `app`, a typer.Typer.
COMMANDS = {
    "data": "Build, inspect and verify data sets.",
    "plan": "Say what to run on how many nodes: time, memory, cost.",
    "train": "Train a recipe; resume where it stopped.",
    "evaluate": "Score runs on their tasks, beside baselines.",
    "predict": "Map whole scenes by a run.",
    "embed": "Write features of whole scenes by a frozen encoder.",
    "probe": "Say what a frozen backbone knows, by simple models on its latents.",
    "study": "Pretrain several models, judge each alike, compare them.",
    "export": "Write the weights of a run for other libraries.",
    "profile": "Measure recipes, grids of them and collectives; compare records.",
    "report": "Turn records into the scaling report.",
    "list": "Show the facts: models, machines, strategies, recipes, sensors, readers, objectives.",
    "jobs": "Render job scripts; check one before the queue.",
}


#: The oldest PyTorch that works: setup.cfg says why.
TORCH = (2, 8)
#: click's error of a command line, wherever typer keeps click.
USAGE: Any = typer.BadParameter.__bases__[0]
#: What is wrong with a path that someone named; other errors of storage are none of theirs.
WRONG_PATHS = {
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY),
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP),
}

#: Of docstrings: paragraphs are folded to the width of the terminal, indented lines stay.
MARKUP: Literal["markdown"] = "markdown"


class LazyGroup(TyperGroup):
    """A group whose subcommands are imported when called, not when listed."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return what the list of commands shows: name and line of help."""
        if cmd_name not in COMMANDS:
            return None
        listed = typer.Typer()
        listed.command(cmd_name, help=COMMANDS[cmd_name])(lambda: None)
        return typer.main.get_command(listed)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that is about to run, imported."""
        name = args[0]
        if name not in COMMANDS:
            return super().resolve_command(ctx, args)
        commands = import_module(f"hpcgeo.cli.{name}").app
        commands.rich_markup_mode = MARKUP
        command = typer.main.get_command(commands)
        command.name = name
        return name, command, args[1:]


app = typer.Typer(
    cls=LazyGroup,
    rich_markup_mode=MARKUP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hpcgeo {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """From a folder of satellite images to a pretrained geospatial model, with the scaling report.

    Exit codes: 0 done; 1 failed; 2 bad input (one line says what and how to mend it); 3 done, but
    some inputs were skipped (a list is left).
    """
    _refuse_old_torch()


def _refuse_old_torch() -> None:
    """Refuse a PyTorch that pip would not have left beside this package; it is not imported.

    Raises:
        InputError: it is older than `TORCH`.
    """
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:  # facts, job scripts and reports need none
        return
    number = re.match(r"(\d+)\.(\d+)", version)
    if number and tuple(map(int, number.groups())) < TORCH:
        least = ".".join(map(str, TORCH))
        raise InputError(
            f"PyTorch {version} is installed, and hpcgeo needs {least} or newer: pip install "
            f"--upgrade 'torch>={least}', with the index of your CUDA or ROCm "
            f"(https://pytorch.org/get-started/locally), or load a newer module"
        )


def _hold_closed_outputs() -> None:
    """Put /dev/null where standard input, output or error is closed.

    The next file that is opened, a checkpoint or a lock, would take its number, and whatever is
    said would be written into it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest free number
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def hpcgeo() -> None:
    """Run the command line; what its user can mend becomes one line and exit code 2."""
    _hold_closed_outputs()
    # When a rank fails, torch's C++ adds a trace on every other one, and buries the cause.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        code = app(prog_name="hpcgeo", standalone_mode=False)
    except InputError as error:
        wrong = str(error)
    except USAGE as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
            sys.exit(2)
        wrong = _usage(error)
    except typer.Abort:
        sys.exit(1)
    except OSError as error:
        if error.filename is None or error.errno not in WRONG_PATHS:
            raise
        wrong = f"{os.fsdecode(error.filename)}: {error.strerror}: choose another, or mend it"
    else:
        sys.exit(code if isinstance(code, int) else 0)
    typer.echo(terminal(f"hpcgeo: {wrong}"), err=True)
    leave_exit_code(2)
    sys.exit(2)


def _usage(error: Any) -> str:
    """Return what is wrong with a command line, with what was typed and what may be meant."""
    rule = " ".join(error.format_message().split()).rstrip(".")
    if type(error) is typer.BadParameter and error.param is not None:
        rule = error.message.removeprefix("Value error, ").rstrip(".")
        name, typed = _typed(error.param.opts)
        if " is not one of " in rule:
            typed, *choices = re.findall(r"'([^']*)'", rule)
            rule += nearest(typed, choices)
        rule = f"{name} {typed}: {rule}"
    if error.ctx is None:
        return str(rule)
    if rule.startswith("No such command"):
        names, typed = error.ctx.command.list_commands(error.ctx), rule.split("'")[1]
        rule = f"no command {typed!r}{nearest(typed, names)}; known: {', '.join(names)}"
    return f"{rule}; see `{error.ctx.command_path} --help`"


def _typed(spellings: list[str]) -> tuple[str, str]:
    """Return an option as it was typed, and its value; of an argument the name alone."""
    for number, word in enumerate(sys.argv):
        name, equals, value = word.partition("=")
        if name in spellings:
            return name, value if equals else " ".join(sys.argv[number + 1 : number + 2])
    return spellings[0], ""


def hpcgeo_profile() -> None:
    """Run `hpcgeo profile`."""
    sys.argv[:1] = ["hpcgeo", "profile"]  # as records name the command
    hpcgeo()
