"""Schedulers: who is known, one that another package adds, and whose job this is."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcgeo.errors import InputError
from hpcgeo.launch import scripts
from hpcgeo.launch.environment import discover
from hpcgeo.launch.rendezvous import meeting
from hpcgeo.launch.schedulers.scheduler import Scheduler
from hpcgeo.launch.schedulers.table import SCHEDULERS, around, scheduler, scheduler_of
from hpcgeo.machines import machine
from hpcgeo.sweep.failures import ending
from tests.desk import install

ROOT = Path(__file__).parents[2]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scheduler]:
    """A scheduler that an installed package adds."""
    monkeypatch.syspath_prepend(str(install(tmp_path)))
    yield scheduler("desk")


def test_nothing_else_names_slurms_commands_or_variables() -> None:
    words = re.compile(r"\b(sbatch|squeue|scontrol|sacct|scancel|SLURM_|SLURMD_|SBATCH_)")
    own = ROOT / "hpcgeo" / "launch" / "schedulers"
    files = [file for kind in ("py", "yaml", "j2") for file in (ROOT / "hpcgeo").rglob(f"*.{kind}")]
    found = [file for file in files if words.search(file.read_text())]
    assert own / "slurm.py" in found and all(own in file.parents for file in found), found


def test_an_unknown_one_names_the_known_and_the_way(desk: Scheduler, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="known: slurm, desk; a package adds one by an entry poi"):
        scheduler("sl")
    with pytest.raises(InputError, match=r"^pbs runs pbs: unknown scheduler 'pbs'; known: slurm"):
        scheduler_of(machine(str(tmp_path / "pbs.yaml")))
    assert scheduler_of(machine("frontier")) is SCHEDULERS["slurm"]


def test_whose_job_this_is(desk: Scheduler) -> None:
    assert around({}) is None
    assert around({"SLURM_JOB_ID": "7"}) is SCHEDULERS["slurm"]
    assert around({"DESK_JOB": "7"}) is None, "no rank searches all that is installed"
    inside = {"HPCGEO_SCHEDULER": "desk", "DESK_JOB": "x+0"}
    here = discover(inside)
    assert (here.launcher, here.scheduler, here.job_id) == ("single", "desk", "x+0")
    inside |= {"DESK_RANK": "1", "DESK_SIZE": "2"}
    here = discover(inside)
    assert (here.launcher, here.rank, here.world_size) == ("desk", 1, 2)
    mine, other = meeting(here, inside), meeting(here, inside | {"DESK_JOB": "y"})
    assert mine and other and mine.address == "localhost"
    assert mine.port != other.port and mine.start != other.start
    with pytest.raises(InputError, match="DESK_SIZE is missing beside the other variables of desk"):
        discover({name: inside[name] for name in inside if name != "DESK_SIZE"})


def test_its_words_for_an_end_are_known(desk: Scheduler) -> None:
    assert ending("step 3\ndesk: CANCELLED").status == "cancelled"
    assert ending("JobState=CANCELLED").status == "cancelled"


def test_a_job_is_rendered_by_its_template(desk: Scheduler, tmp_path: Path) -> None:
    where = str(tmp_path / "desk.yaml")
    job = scripts.one_off(where, "mae_vit_tiny", 1, "00:30:00")
    assert scripts.file_name(job) == "desk_mae_vit_tiny.desk"
    assert scripts.render(job) == f"#!/bin/bash\nhpcgeo train mae_vit_tiny launch.machine={where}\n"
