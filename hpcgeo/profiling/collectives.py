"""Latency and bandwidth of collectives over sizes and groups, as nccl-tests counts them.

All groups of a kind run at once (every pair, every node), as they do under a sharding strategy: on
a shared network they congest each other, and the slowest rank of all of them is the time. Sizes
are visited in rounds, so that a disturbance of some seconds falls on few repetitions of each.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import groupby
from pathlib import Path
from typing import Any, get_args

import torch
import torch.distributed as dist
from torch import Tensor

from hpcgeo.errors import InputError
from hpcgeo.launch.environment import discover
from hpcgeo.launch.rendezvous import meeting
from hpcgeo.log import bar, log, set_up
from hpcgeo.machines import machine
from hpcgeo.measured import Spread, Transfer
from hpcgeo.parallel.device import row_of
from hpcgeo.parallel.group import barrier, join, on_rank_0
from hpcgeo.parallel.topology import RankPlace, near_first, placed
from hpcgeo.plan import links as machine_files
from hpcgeo.plan.links import Collective, Group, in_words
from hpcgeo.profiling.communication import BUS
from hpcgeo.records import LinksRecord, append
from hpcgeo.train.device import hold_to
from hpcgeo.train.faults import compare_ranks, explained
from hpcgeo.train.provenance import command, commit, device_name, driver, environment, versions

ROUNDS = 3
#: Repetitions of one size in one round, fewest and most.
FEWEST, MOST = 2, 16
WARM_UP = 2
#: Calls of a repetition: on a device enough that starting and waiting for the stream do not count.
IN_A_ROW = {"cpu": 1, "cuda": 20}
MEET_S = 50.0
ELEMENT = 4  # bytes: float32

#: Named anew in torch 2.13, where the older names warn.
ALL_GATHER = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
REDUCE_SCATTER = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


@dataclass(frozen=True)
class CollectiveCase:
    """One size of a collective over the groups of one kind."""

    collective: Collective
    group: Group
    ranks: int
    nodes: int
    message_bytes: int
    call: Callable[[], object]
    seconds: list[float] = field(default_factory=list)  #: of this rank


def measure(
    first_bytes: int,
    last_bytes: int | None,
    *,
    machine_name: str,
    seconds: float,
    records: Path,
    machine_file: Path | None,
) -> LinksRecord:
    """Measure all collectives, append one record and write the machine file; every rank calls it.

    Args:
        first_bytes, last_bytes: message sizes double from one up to the other; None: 64 MiB on a
            host, 1 GiB on a device.
        machine_name: a row of `hpcgeo list machines`, or a YAML file.
        seconds: that the measurement may take, about.
        records: the file of JSON lines.
        machine_file: of the fitted links, or None.

    Raises:
        InputError: one rank, ranks that differ, sizes that do not fit, a file nobody can write.
    """
    here = discover()
    set_up(here.rank, here.host)
    where = machine(machine_name)
    hold_to(where)
    if here.world_size < 2:
        raise InputError(
            "one rank has nobody to talk to: start at least 2, e.g. `mpirun -n 2 hpcgeo-profile "
            "collectives`"
        )
    last_bytes = last_bytes or 2 ** (30 if torch.cuda.is_available() else 26)
    sizes = doubling(first_bytes, last_bytes)
    device = join(
        here.rank,
        here.world_size,
        here.local_rank,
        here.local_size,
        meeting(here),
        run="collectives",
        host=here.host,
        rendezvous_timeout_s=MEET_S,
    )
    with explained(lambda: "measuring collectives"):
        name = device_name(device, here.local_size)
        options = {"--from": first_bytes, "--to": last_bytes, "--seconds": seconds}
        facts = {"device": name, "--machine": where.name} | options
        compare_ranks({key: str(value) for key, value in facts.items()}, here.host, device)
        on_rank_0(lambda: _refuse_paths([path for path in (records, machine_file) if path]))
        places = placed(here.host, here.local_rank, row_of(device, where.devices))
        cases = _cases(sizes, places, here.rank, device)
        _repeat(cases, seconds, device)
        links = _describe(cases, places, where.name, name, device)
    if here.rank == 0:
        append(records, links)
        _conclude(links, records, machine_file)
    return links


def doubling(first_bytes: int, last_bytes: int) -> list[int]:
    """Return message sizes, each twice the one before.

    Raises:
        InputError: the first is larger than the last.
    """
    if first_bytes > last_bytes:
        raise _shared(
            f"--from {in_words(first_bytes)} is larger than --to {in_words(last_bytes)}: swap them"
        )
    return [first_bytes << power for power in range((last_bytes // first_bytes).bit_length())]


def groups_of(places: Sequence[RankPlace]) -> dict[Group, list[list[int]]]:
    """Return the groups of each kind; a kind whose groups are those of a wider one is left out.

    Pairs are the two nearest ranks of a host (of one package, where a package has two devices);
    with one rank a host, of two neighbouring hosts. An odd rank is in no pair.

    Args:
        places: of every rank.

    Raises:
        InputError: hosts have different numbers of ranks.
    """
    order = near_first(places)
    hosts = [list(ranks) for _, ranks in groupby(order, key=lambda rank: places[rank].host)]
    counts = sorted({len(ranks) for ranks in hosts})
    if len(counts) > 1:
        raise _shared(
            f"hosts have different numbers of ranks ({', '.join(map(str, counts))}): start the "
            f"same number on every host"
        )
    near = hosts if counts[0] > 1 else [list(order)]
    pairs = [ranks[at : at + 2] for ranks in near for at in range(0, len(ranks) - 1, 2)]
    kinds: dict[Group, list[list[int]]] = {"all": [list(order)]}
    narrower: list[tuple[Group, list[list[int]]]] = [("pair", pairs)]
    if counts[0] > 1:
        narrower.insert(0, ("node", hosts))
    for kind, groups in narrower:
        wider = next((known for known, those in kinds.items() if those == groups), None)
        if wider is None:
            kinds[kind] = groups
        else:
            log.info("%s is the same as %s: measured once, as %s", kind, wider, wider)
    return kinds


def _cases(
    sizes: Sequence[int], places: Sequence[RankPlace], rank: int, device: torch.device
) -> list[CollectiveCase]:
    """Return every case, sizes innermost, with its call on this rank."""
    kinds = groups_of(places)
    local_ranks = sum(place.host == places[rank].host for place in places)
    # An element for each rank at least, and whole elements for each.
    whole = -(-sizes[-1] // (ELEMENT * len(places))) * ELEMENT * len(places)
    _refuse_size(whole, device, local_ranks)
    buffer, piece = (torch.zeros(size // ELEMENT, device=device) for size in (whole, whole // 2))
    cases = []
    for kind, groups in kinds.items():
        own, _ = dist.new_subgroups_by_enumeration(groups)  # type: ignore[no-untyped-call]
        ranks = len(groups[0])
        nodes = max(len({places[rank].host for rank in group}) for group in groups)
        unit = ELEMENT * ranks
        for name in get_args(Collective):
            for size in sorted({-(-size // unit) * unit for size in sizes}):
                parts = buffer[: size // ELEMENT], piece[: size // unit]
                call = _call(name, *parts, own) if own else _nothing
                cases.append(CollectiveCase(name, kind, ranks, nodes, size, call))
    return cases


def _call(
    collective: Collective, whole: Tensor, piece: Tensor, group: dist.ProcessGroup
) -> Callable[[], object]:
    calls: Mapping[Collective, Callable[[], object]] = {
        "all_reduce": lambda: dist.all_reduce(whole, group=group),
        "all_gather": lambda: ALL_GATHER(whole, piece, group=group),
        "reduce_scatter": lambda: REDUCE_SCATTER(piece, whole, group=group),
    }
    return calls[collective]


def _nothing() -> None:
    """What a rank outside all groups does."""


def _repeat(cases: Sequence[CollectiveCase], seconds: float, device: torch.device) -> None:
    """Fill the seconds of all cases, those of one repetition on this rank."""
    rounds = []
    with bar("collectives", len(cases) * (1 + ROUNDS), shown=dist.get_rank() == 0) as progress:

        def show(case: CollectiveCase) -> None:
            detail = f"{case.collective} over {case.group}, {in_words(case.message_bytes)}"
            progress.update(progress.task_ids[0], advance=1, detail=detail)

        for case in cases:
            show(case)
            for _ in range(WARM_UP):
                begin = time.perf_counter()
                _once(case.call, device)
                whole = (time.perf_counter() - begin) / IN_A_ROW[device.type]
            slowest = _slowest([whole], device)[0]
            wanted = seconds / (len(cases) * ROUNDS * IN_A_ROW[device.type] * slowest)
            rounds.append(min(MOST, max(FEWEST, int(wanted))))
        for _ in range(ROUNDS):
            for case, times in zip(cases, rounds, strict=True):
                show(case)
                case.seconds.extend(_once(case.call, device) for _ in range(times))


def _once(call: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of one call, of several in a row that all ranks begin together."""
    barrier()
    _synchronize(device)
    begin = time.perf_counter()
    for _ in range(IN_A_ROW[device.type]):
        call()
    _synchronize(device)
    return (time.perf_counter() - begin) / IN_A_ROW[device.type]


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _slowest(seconds: Sequence[float], device: torch.device) -> list[float]:
    worst = torch.tensor(seconds, dtype=torch.float64, device=device)
    dist.all_reduce(worst, dist.ReduceOp.MAX)
    return worst.tolist()


def _describe(
    cases: Sequence[CollectiveCase],
    places: Sequence[RankPlace],
    machine: str,
    name: str,
    device: torch.device,
) -> LinksRecord:
    hosts = sorted({place.host for place in places})
    head, dirty = commit()
    return LinksRecord(
        kind="measured",
        machine=machine,
        device=name,
        hosts=hosts,
        nodes=len(hosts),
        world_size=len(places),
        backend=dist.get_backend(),
        transfers=[_transfer(case, Spread.of(_slowest(case.seconds, device))) for case in cases],
        versions=versions(),
        driver=driver(device),
        environment=environment(),
        commit=head,
        dirty=dirty,
        command=command(),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def _transfer(case: CollectiveCase, seconds: Spread) -> Transfer:
    rate = case.message_bytes / seconds.median
    fields: dict[str, Any] = {
        name: getattr(case, name) for name in ("collective", "group", "ranks", "nodes")
    }
    return Transfer(
        **fields,
        message_bytes=case.message_bytes,
        seconds=seconds,
        algorithm_bytes_per_s=rate,
        bus_bytes_per_s=rate * BUS[case.collective](case.ranks),
    )


def _conclude(links: LinksRecord, records: Path, machine_file: Path | None) -> None:
    """Say what was found, and leave the machine file."""
    found = machine_files.of(links)
    for curve in found.curves:
        log.info("%s", curve)
    for curve in found.curves:
        for sentence in curve.sentences():
            log.warning("%s", sentence)
    if machine_file:
        machine_files.write(machine_file, found)
    log.info("appended to %s%s", records, f", links in {machine_file}" if machine_file else "")


def _refuse_paths(paths: Sequence[Path]) -> None:
    for path in paths:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from None
        if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
            raise InputError(f"{path} cannot be written: name a file in a folder of yours")


def _refuse_size(whole: int, device: torch.device, local_ranks: int) -> None:
    """Refuse messages that do not fit in memory, once and a half on each rank."""
    if device.type == "cuda":
        free, ranks = torch.cuda.mem_get_info(device)[0], 1
    else:
        free, ranks = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), local_ranks
    if 1.5 * whole * ranks > free / 2:
        raise _shared(
            f"--to {in_words(whole)} takes more than half the memory of {device.type} for "
            f"{ranks} {'rank' if ranks == 1 else 'ranks'}: choose a smaller one"
        )


def _shared(text: str) -> InputError:
    """Return an error that every rank raises alike."""
    error = InputError(text)
    error.shared = True
    return error
