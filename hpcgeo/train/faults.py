"""What ended a run, in one line: cause, place, and what to do; and the ranks that differ."""

import errno
import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist

import hpcgeo
from hpcgeo.config import RunConfig
from hpcgeo.errors import FaultError, InputError, out_of_memory
from hpcgeo.parallel.group import listed
from hpcgeo.train.nccl import flight_record, in_words, last_error
from hpcgeo.train.provenance import versions
from hpcgeo.workloads.workload import Source

FULL = {errno.ENOSPC, errno.EDQUOT}
#: What storage says that is not there, or not as it should be.
STORAGE = {
    *(errno.EIO, errno.EROFS, errno.ESTALE, errno.EACCES, errno.EPERM, errno.ETIMEDOUT),
    *(errno.EMFILE, errno.ENFILE, errno.EREMOTEIO, errno.ENXIO, errno.ENODEV, errno.EFBIG),
    *(errno.ENOTCONN, errno.ESHUTDOWN, errno.EHOSTDOWN, errno.ENOLCK),
}


#: What the backends say when a peer is gone, or when a collective has waited for one for too long.
GONE = re.compile(
    r"[Cc]onnection (closed|reset|was closed)|ncclRemoteError|[Rr]emote process|Broken pipe"
    r"|recvValue|got 0 bytes|store->get|/gloo/transport/|[Ss]ocket (timeout|Timeout)|wait timeout"
)
LATE = re.compile(r"[Tt]imed? ?out|Watchdog caught")
LOST, GIVEN_UP = "lost the other ranks", "a collective was given up"


class First(Protocol):
    """Tells the other ranks why this one fails, or returns which of them failed first, and why."""

    def __call__(self, text: str, *, follows: bool) -> str | None: ...


@contextmanager
def explained(place: Callable[[], str], first: First | None = None) -> Iterator[None]:
    """Turn the errors of a run that are no bugs into one line.

    Args:
        place: says where in the run this rank is.
        first: tells and asks the others.

    Raises:
        FaultError: out of memory, out of disk, the other ranks lost, a reader process lost.
    """
    try:
        yield
    except Exception as error:
        text = explain(error)
        follows = text is not None and text.startswith((LOST, GIVEN_UP))
        named = None
        if first and not getattr(error, "shared", False):
            said = text or f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            named = first(f"{place()}: {said}", follows=follows)
        if text is None:
            raise
        if follows:
            text += f"; {named or 'probably one of them failed first: look for its line'}"
        if follows or isinstance(error, dist.DistError):
            text += flight_record(dist.get_rank() if dist.is_initialized() else 0)
        raise FaultError(f"{place()}: {text}") from error


def explain(error: Exception) -> str | None:
    """Return cause and way out of an error that is no bug, or None."""
    said = str(error).strip().splitlines()[:1]
    detail = f" ({said[0]})" if said else ""
    memory = out_of_memory(str(error)) if isinstance(error, RuntimeError) else None
    if memory or isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return (
            f"out of memory{f' ({memory})' if memory else detail}; choose a smaller "
            f"train.micro_batch with a larger train.accumulate, parallel.recompute, or a strategy "
            f"that shards more"
        )
    if isinstance(error, OSError) and error.errno in FULL:
        where = f" of {error.filename}" if error.filename else ""
        return (
            f"the disk{where} is full ({error.strerror}); make room and start it again, it resumes"
        )
    if isinstance(error, OSError) and error.errno in STORAGE:
        where = f" {error.filename}" if error.filename else " a file of the run"
        return (
            f"{error.strerror} while reading or writing{where}; when the storage answers again, "
            f"start it again, it resumes"
        )
    if isinstance(error, dist.DistError) or "/gloo/" in str(error):
        return _of_backend(str(error))
    if "Too many open files" in str(error):
        return (
            "too many open files; raise their limit where the ranks start (ulimit -n), or read "
            "with fewer data.workers"
        )
    if "DataLoader worker" in str(error):
        return (
            f"a reader process ended{detail}: killed, out of memory (fewer data.workers), or a "
            f"file was cut while mapped (`hpcgeo data verify`)"
        )
    return None


def _of_backend(text: str) -> str:
    """Return what an error of NCCL, RCCL, gloo or the store means."""
    if GONE.search(text):
        return f"{LOST} ({last_error(text)})"
    if "NCCL error" not in text and LATE.search(text):
        return f"{GIVEN_UP} ({last_error(text)})"
    return in_words(text) if "NCCL" in text else f"torch.distributed: {last_error(text)}"


def agree(run: RunConfig, dataset: Source, host: str, device: torch.device) -> None:
    """Compare configuration, data set and what `compare_ranks` adds; every rank calls it.

    Raises:
        InputError: ranks differ.
    """
    # Where the run lives is decided by rank 0 alone.
    options = dict(_options(run.model_dump(mode="json", exclude={"run"})))
    compare_ranks(options | {"data fingerprint": dataset.fingerprint[:12]}, host, device)


def compare_ranks(mine: dict[str, str], host: str, device: torch.device) -> None:
    """Compare the ranks before anything is written; every rank calls it.

    Args:
        mine: by name, what they must have in common beside versions and code.
        host, device: of this rank.

    Raises:
        InputError: ranks differ; the message says which, where and in what.
    """
    mine = mine | _code()
    digest = hashlib.sha256(repr(sorted(mine.items())).encode()).digest()
    own = torch.tensor([(byte, -byte) for byte in digest], dtype=torch.int32, device=device)
    least = own.clone()
    dist.all_reduce(least, dist.ReduceOp.MIN)  # of a byte and its negative: equal or all see it
    if torch.equal(least, own):
        return
    facts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(facts, (host, mine))
    groups: dict[str, list[int]] = {}
    for rank, (_, theirs) in enumerate(facts):
        groups.setdefault(repr(theirs), []).append(rank)
    lines = []
    for ranks in list(groups.values())[1:]:
        there, theirs = facts[ranks[0]]
        for key in sorted(facts[0][1] | theirs):
            ours, other = (row.get(key, "nothing") for row in (facts[0][1], theirs))
            if ours != other:
                lines.append(f"{listed(ranks)} on {there}: {key}: {other}, rank 0: {ours}")
    error = InputError(
        f"ranks differ: {'; '.join(lines)}; start all with the same command, code, environment "
        f"and data"
    )
    error.shared = True
    raise error


def _code() -> dict[str, str]:
    """Return the versions, and the code of this package, by name."""
    found = {f"version of {name}": number for name, number in versions().items()}
    code = hashlib.sha256()
    root = Path(hpcgeo.__file__).parent
    for path in sorted(root.rglob("*.py")):
        code.update(path.read_bytes())
    found["code of hpcgeo"] = code.hexdigest()[:12]
    return found


def _options(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _options(value, f"{prefix}{name}.")
        else:
            yield prefix + name, str(value)
