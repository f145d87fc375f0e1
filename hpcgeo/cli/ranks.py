"""How a rank's process ends: together when all is well, at once when not."""

import faulthandler
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable

import torch.distributed as dist
import typer

from hpcgeo.errors import FaultError, InputError
from hpcgeo.launch.environment import discover
from hpcgeo.quoting import terminal


def ranked(action: Callable[[], object]) -> None:
    """Run one rank's work and end its process; work that answers False found what it looked for
    wrong, and exits with 1.

    A rank that fails says which it is, on which host and why, and ends at once, so that its peers
    in a collective notice; one that succeeds waits for the others. The interpreter is not shut
    down in order: right after a collective that may abort.
    """
    faulthandler.enable()  # a bus error in a mapped file has no other voice
    environment = discover()
    where = f"rank {environment.rank} of {environment.world_size} on {environment.host}"
    code = 0
    try:
        code = int(action() is False)
        dist.barrier()
        dist.destroy_process_group()
    except (InputError, FaultError) as error:
        code = 2 if isinstance(error, InputError) else 1
        if error.shared and environment.rank:
            time.sleep(1)  # rank 0 speaks for all, before the launcher takes it down
        else:
            typer.echo(terminal(f"hpcgeo: {where}: {error}"), err=True)
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
        typer.echo(f"hpcgeo: {where}: stopped by Ctrl-C", err=True)
    except BaseException as error:
        code = 1
        traceback.print_exc()
        typer.echo(f"hpcgeo: {where}: {type(error).__name__}: {error}", err=True)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
