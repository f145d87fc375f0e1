"""How a rank's process ends: together when all is well, at once when not."""

import faulthandler
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress

import torch.distributed as dist
import typer

from hpcgeo.errors import FaultError, InputError
from hpcgeo.launch.environment import discover, leave_exit_code
from hpcgeo.parallel.group import barrier
from hpcgeo.quoting import terminal
from hpcgeo.train.faults import explain

#: Open files that a rank may have at least, where the system lets it.
FILES = 1 << 16


def ranked(action: Callable[[], object]) -> None:
    """Run one rank's work and end its process; work that answers False found what it looked for
    wrong, and exits with 1.

    A rank that fails says which it is, on which host and why, and ends at once, so that its peers
    in a collective notice; one that succeeds waits for the others. The interpreter is not shut
    down in order: right after a collective that may abort.
    """
    faulthandler.enable()  # a bus error in a mapped file has no other voice
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files != most:  # a connection to every other rank is a file
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(files, min(most, FILES)), most))
    environment = discover()
    where = f"rank {environment.rank} of {environment.world_size} on {environment.host}"
    code = 0
    try:
        code = int(action() is False)
        barrier()
        dist.destroy_process_group()
    except (InputError, FaultError) as error:
        code = 2 if isinstance(error, InputError) else 1
        if code == 2:
            leave_exit_code(code)
        if error.shared and environment.rank:
            time.sleep(1)  # rank 0 speaks for all, before the launcher takes it down
        else:
            typer.echo(terminal(f"hpcgeo: {where}: {error}"), err=True)
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
        typer.echo(f"hpcgeo: {where}: stopped by Ctrl-C", err=True)
    except BaseException as error:
        code = 1
        text = explain(error) if isinstance(error, Exception) else None
        if text is None:
            traceback.print_exc()
            text = f"{type(error).__name__}: {error}"
        typer.echo(terminal(f"hpcgeo: {where}: {text}"), err=True)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
