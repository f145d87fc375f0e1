"""`hpcgeo-profile collectives`: real ranks under real launchers, and its groups."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hpcgeo.errors import InputError
from hpcgeo.parallel.topology import RankPlace
from hpcgeo.plan import links as machine_files
from hpcgeo.profiling.collectives import BUS, _refuse_size, doubling, groups_of
from hpcgeo.records import LinksRecord, read_links
from tests.ranks import Own, launch
from tests.slurm import Slurm

HPCGEO = [sys.executable, "-m", "hpcgeo"]
QUICK = ["--seconds", "0.5", "--to", "32KiB"]


def run(launcher: list[str], folder: Path, *words: str) -> LinksRecord:
    """Measure under a launcher; return the record, held against the machine file."""
    records, file = folder / "links.jsonl", folder / "local.yaml"
    outputs = ["--records", str(records), "--machine-file", str(file)]
    done = subprocess.run(
        [*launcher, "profile", "collectives", *QUICK, *words, *outputs],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    [links] = read_links([records])
    assert machine_files.read(file) == machine_files.of(links)
    assert "node is the same as all" in done.stderr
    return links


def check(links: LinksRecord, ranks: int, sizes: int) -> None:
    groups = {"all": ranks} | ({"pair": 2} if ranks > 2 else {})
    assert {(t.collective, t.group, t.ranks) for t in links.transfers} == {
        (name, group, size) for name in BUS for group, size in groups.items()
    }
    assert len(links.transfers) == len(BUS) * len(groups) * sizes
    for transfer in links.transfers:
        n, rate = transfer.ranks, transfer.algorithm_bytes_per_s
        assert transfer.message_bytes % (4 * n) == 0 and transfer.nodes == 1
        assert len(transfer.seconds.values) >= 6
        assert rate == transfer.message_bytes / transfer.seconds.median
        factor = 2 * (n - 1) / n if transfer.collective == "all_reduce" else (n - 1) / n
        assert transfer.bus_bytes_per_s == pytest.approx(rate * factor)
    assert links.backend == "gloo" and links.world_size == ranks and links.command
    assert links.commit and links.versions["torch"] and len(links.hosts) == 1


@pytest.mark.slow
@pytest.mark.long
def test_two_ranks_under_torchrun(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launcher = [*torchrun, "--nproc-per-node", "2", "-m", "hpcgeo"]
    check(run(launcher, tmp_path), 2, 6)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.mpi
@pytest.mark.skipif(not shutil.which("mpirun"), reason="needs mpirun")
def test_four_ranks_under_mpirun(tmp_path: Path) -> None:
    mpirun = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "4"]
    links = run([*mpirun, *HPCGEO], tmp_path, "--from", "10KB")
    check(links, 4, 2)
    assert sorted({t.message_bytes for t in links.transfers}) == [10_000, 20_000]


@pytest.mark.slow
def test_two_nodes_under_slurm(slurm: Slurm, tmp_path: Path) -> None:
    """Every node is a group, and both run at once; a pair of each is all of it."""
    words = [*HPCGEO, "profile", "collectives", *QUICK, "--records", str(tmp_path / "links.jsonl")]
    job = slurm.submit(f"#SBATCH -N2 -n4 --ntasks-per-node=2\nsrun {' '.join(words)}")
    assert slurm.wait(job) == ("COMPLETED", 0), slurm.output(job)
    assert "pair is the same as node" in slurm.output(job)
    [links] = read_links([tmp_path])
    assert (links.nodes, links.hosts, links.world_size) == (2, ["node1", "node2"], 4)
    spans = {(transfer.group, transfer.ranks, transfer.nodes) for transfer in links.transfers}
    assert spans == {("all", 4, 2), ("node", 2, 1)}


def said(*options: list[str], ranks: int) -> list[tuple[int, str]]:
    """Start ranks with options of their own; return exit code and words of each."""
    own = {rank: Own(options=tuple(words)) for rank, words in enumerate(options)}
    started = launch(ranks, "profile", "collectives", only=own)
    words_of = [rank.communicate(timeout=120)[1] for rank in started]
    return [(rank.wait(), words) for rank, words in zip(started, words_of, strict=True)]


def test_ranks_that_differ_end_together(tmp_path: Path) -> None:
    records = ["--records", str(tmp_path / "links.jsonl")]
    first, second = said([*QUICK, *records], [*QUICK, "--from", "2KiB", *records], ranks=2)
    assert (first[0], second[0]) == (2, 2)
    assert "rank 1 on" in first[1] and "--from: 2048, rank 0: 1024" in first[1]
    assert "hpcgeo: " not in second[1], "rank 0 speaks for all"
    assert not (tmp_path / "links.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "one rank has nobody to talk to"),
        (["--from", "24 kilo"], "'24 kilo' is no size"),
        (["--machine", "frontiers"], "did you mean 'frontier'"),
    ],
)
def test_bad_input(words: list[str], message: str) -> None:
    [(code, text)] = said(words, ranks=1)
    assert code == 2 and message in text and "Traceback" not in text


def test_what_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    words = ["--records", str(tmp_path)]
    first, second = said(words, words, ranks=2)
    assert (first[0], second[0]) == (2, 2)
    assert f"--records {tmp_path}: a folder" in first[1]
    with pytest.raises(InputError, match=r"--to 1 TB takes .* memory of cpu for 200 ranks"):
        _refuse_size(10**12, torch.device("cpu"), 200)


def places(*counts: int) -> list[RankPlace]:
    """Return ranks dealt host after host."""
    hosts = [(f"node{host}", rank) for host, count in enumerate(counts) for rank in range(count)]
    return [RankPlace(host, rank, rank // 2) for host, rank in hosts]


def test_groups() -> None:
    assert groups_of(places(2)) == {"all": [[0, 1]]}
    assert groups_of(places(4)) == {"all": [[0, 1, 2, 3]], "pair": [[0, 1], [2, 3]]}
    assert groups_of(places(3)) == {"all": [[0, 1, 2]], "pair": [[0, 1]]}
    # A pair never leaves its host while a host has two ranks.
    assert groups_of(places(3, 3)) == {
        "all": [[0, 1, 2, 3, 4, 5]],
        "node": [[0, 1, 2], [3, 4, 5]],
        "pair": [[0, 1], [3, 4]],
    }
    assert groups_of(places(2, 2)) == {"all": [[0, 1, 2, 3]], "node": [[0, 1], [2, 3]]}
    assert groups_of(places(1, 1, 1)) == {"all": [[0, 1, 2]], "pair": [[0, 1]]}
    # Dealt round the hosts, the nearest are still found.
    dealt = [places(2, 2)[rank] for rank in (0, 2, 1, 3)]
    assert groups_of(dealt)["node"] == [[0, 2], [1, 3]]
    with pytest.raises(InputError, match=r"different numbers of ranks \(2, 4\)"):
        groups_of(places(4, 2))


def test_sizes() -> None:
    assert doubling(1024, 8192) == [1024, 2048, 4096, 8192]
    assert doubling(24_000, 100_000) == [24_000, 48_000, 96_000]
    assert doubling(8, 8) == [8]
    with pytest.raises(InputError, match="--from 1 MiB is larger than --to 1 KiB"):
        doubling(2**20, 2**10)
