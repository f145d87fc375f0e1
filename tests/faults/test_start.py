"""Ranks that cannot meet, or differ, end before anything is written."""

import shutil
import time
from pathlib import Path

import pytest

import hpcgeo
from tests import processes as commands
from tests.ranks import Own, end, start, tell

ROOT = Path(hpcgeo.__file__).parent


def test_an_unreachable_master(tmp_path: Path) -> None:
    began = time.monotonic()
    ranks = start(tmp_path / "run", 2, "launch.rendezvous_timeout_s=3", only={1: Own()})
    (said,) = end(ranks)
    tell("master unreachable, meet 3 s", said, began, ranks[0].returncode)
    assert ranks[0].returncode == 2
    assert "rank 1 of 2 on " in said and "cannot meet the other ranks at 127.0.0.1:" in said
    assert "Connection refused" in said and "launch.rendezvous_timeout_s" in said
    assert "Traceback" not in said and "frame #" not in said


def test_compiling_without_a_compiler_is_refused(tmp_path: Path) -> None:
    own = Own(options=("parallel.compile=true",), variables={"CXX": "no-such-compiler -O2"})
    (said,) = end(start(tmp_path / "run", 1, only={0: own}))
    assert "no-such-compiler is not on PATH: load its module, name it in CXX" in said
    assert "Traceback" not in said and not (tmp_path / "run").exists()


@pytest.mark.long
def test_readers_work_under_a_long_tmpdir(tmp_path: Path) -> None:
    """The sockets between processes lie there, and the name of one has 108 characters."""
    long = tmp_path / ("x" * 100)
    long.mkdir()
    own = Own(options=("data.workers=1", "train.steps=2"), variables={"TMPDIR": str(long)})
    (said,) = end(start(tmp_path / "run", 1, only={0: own}))
    assert "step 2/2" in said


def test_ranks_that_do_not_come_are_named(tmp_path: Path) -> None:
    began = time.monotonic()
    ranks = start(tmp_path / "run", 4, "launch.rendezvous_timeout_s=5", only={0: Own(), 2: Own()})
    said = end(ranks)
    tell("some ranks come, meet 5 s", said[0], began, ranks[0].returncode)
    assert [rank.returncode for rank in ranks] == [2, 2]
    assert "2 of 4 ranks (ranks 1, 3) did not come to 127.0.0.1:" in said[0]
    assert not (tmp_path / "run").exists()


def _sets(folder: Path) -> None:
    for number in (0, 1):
        own = folder / str(number)
        make = ["synthesize", own / "scenes", "--scenes", 1, "--size", 128, "--seed", number]
        build = ["build", own / "scenes", "--out", own / "set", "--chip", 32]
        for words in (make, build):
            commands.hpcgeo("data", *words).check_returncode()


@pytest.mark.parametrize("what", ["option", "code", pytest.param("data", marks=pytest.mark.long)])
def test_ranks_that_differ_say_in_what(tmp_path: Path, what: str) -> None:
    run = tmp_path / "run"
    began = time.monotonic()
    if what == "option":
        message = "seed: 7, rank 0: 0"
        ranks = start(run, 2, only={0: Own(), 1: Own(options=("seed=7",))})
    elif what == "code":
        message = "code of hpcgeo: "
        shutil.copytree(ROOT, tmp_path / "other" / "hpcgeo")
        with (tmp_path / "other" / "hpcgeo" / "zoo.py").open("a") as file:
            file.write("# another version\n")
        other = Own(variables={"PYTHONPATH": str(tmp_path / "other")}, cwd=tmp_path)
        ranks = start(run, 2, only={0: Own(), 1: other})
    else:
        message = "data fingerprint: "
        _sets(tmp_path)
        both = {rank: Own(cwd=tmp_path / str(rank)) for rank in (0, 1)}
        ranks = start(run, 2, "data.path=set", only=both)
    said = end(ranks)
    tell(f"another {what}", said[0] + said[1], began, ranks[0].returncode)
    assert [rank.returncode for rank in ranks] == [2, 2], said
    assert "ranks differ: rank 1 on " in said[0] and message in said[0]
    assert said[1] == "" and "Traceback" not in said[0]
    assert not run.exists()
