"""Devices that no table knows train and are profiled; errors of the library of collectives are said
on all ranks.
"""

from pathlib import Path

import pytest
import torch

from hpcgeo.records import read
from tests.device.commands import GPU, MAE, start
from tests.device.planted import ERROR, NAME

pytestmark = GPU

RANKS = min(2, torch.cuda.device_count())
PLANTED = "tests.device.planted"


def test_a_device_that_no_table_knows(tmp_path: Path) -> None:
    name = {NAME: "NVIDIA GeForce RTX 9090 MIG 1g.24gb"}
    done = start("train", *MAE, f"run.dir={tmp_path / 'run'}", variables=name, module=PLANTED)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("its peak in float32 is not known") == 1
    words = ("profile", "run", *MAE, "--steps", 2, "--warmup", 2)
    records = tmp_path / "records.jsonl"
    done = start(*words, "--records", records, variables=name, module=PLANTED)
    assert done.returncode == 0, done.stdout
    [record] = read([records])
    assert record.device == name[NAME] and record.peak_source == "measured"


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        (
            "socketStartConnect: Connect to 10.0.0.7<49721> failed : Connection refused",
            "the hosts do not reach each other: socketStartConnect: Connect to 10.0.0.7<49721> "
            "failed : Connection refused",
        ),
        (
            "Error: network AWS Libfabric not found.",
            "its network plugin is not found: Error: network AWS Libfabric not found.",
        ),
        (
            "Failed to CUDA calloc async 608 bytes: CUDA failure 2 'out of memory'",
            "out of memory",
        ),
        ("a thing that nobody has seen", "it failed: a thing that nobody has seen"),
    ],
)
def test_an_error_of_the_library_of_collectives(tmp_path: Path, said: str, heard: str) -> None:
    """Its words, version and device stand in the line of the rank that failed, and on the others
    which rank that was.
    """
    done = start(
        *("train", *MAE, "train.steps=40", "train.micro_batch=4", f"run.dir={tmp_path / 'run'}"),
        "train.hang_timeout_s=20",
        ranks=RANKS,
        variables={ERROR: said, "LAST": str(RANKS - 1)},
        module=PLANTED,
    )
    assert done.returncode == 1, done.stdout
    lines = [line for line in done.stdout.splitlines() if line.startswith("hpcgeo: rank ")]
    first = f"hpcgeo: rank {RANKS - 1} of {RANKS} "
    [own] = [line for line in lines if line.startswith(first) and "lost" not in line]
    assert heard in own
    for line in lines:
        assert heard in line, done.stdout
    assert "DistBackendError" not in done.stdout  # as a traceback of ours would end
