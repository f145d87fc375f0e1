"""The commands `hpcgeo` and `hpcgeo-profile`; a subcommand's module loads when it is called."""

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

#: Subcommand: its module below hpcgeo.cli, and the line of help. Kept here so that `hpcgeo --help`
#: imports none of them; every module offers `app`, a typer.Typer.
COMMANDS = {
    "data": "Build, inspect and verify data sets.",
    "train": "Train a recipe; resume where it stopped.",
    "evaluate": "Score runs on their tasks, beside baselines.",
    "probe": "Say what a frozen backbone knows, by simple models on its latents.",
    "export": "Write the weights of a run for other libraries.",
    "profile": "Measure recipes, grids of them and collectives; compare records.",
    "report": "Turn records into the scaling report.",
    "list": "Show the facts: models, machines, strategies, recipes, sensors, readers, objectives.",
    "jobs": "Render job scripts; check one before the queue.",
}


#: The oldest PyTorch that works: setup.cfg says why.
TORCH = (2, 8)

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
    """Run the command line; an InputError becomes one line and exit code 2."""
    _hold_closed_outputs()
    # When a rank fails, torch's C++ adds a trace on every other one, and buries the cause.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        app(prog_name="hpcgeo")
    except InputError as error:
        typer.echo(terminal(f"hpcgeo: {error}"), err=True)
        leave_exit_code(2)
        sys.exit(2)


def hpcgeo_profile() -> None:
    """Run `hpcgeo profile`."""
    sys.argv[:1] = ["hpcgeo", "profile"]  # as records name the command
    hpcgeo()
