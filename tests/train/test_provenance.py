"""Where a number comes from: the driver, and variables that change speed without secrets."""

import shlex
from pathlib import Path

import torch

from hpcgeo.train.provenance import command, driver, environment, versions

GPU = torch.device("cuda", 0)


def test_a_command_can_be_typed_again(monkeypatch) -> None:
    words = ["/somewhere/hpcgeo", "train", "mine.yaml", "data.only=[a, b]", "run.dir=it's here"]
    monkeypatch.setattr("sys.argv", words)
    assert shlex.split(command()) == ["hpcgeo", *words[1:]]


def test_environment_is_what_changes_speed() -> None:
    said = {
        "NCCL_SOCKET_IFNAME": "hsn0",
        "NCCL_TOPO_FILE": "/home/someone/topology.xml",
        "FI_CXI_DEFAULT_CQ_SIZE": "131072",
        "OMP_NUM_THREADS": "7",
        "PYTORCH_ALLOC_CONF": "expandable_segments:True",
        "OMPI_MCA_btl": "tcp,self",
    }
    unsaid = {
        "OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:5",
        "CUDA_VISIBLE_DEVICES": "3",
        "ROCR_VISIBLE_DEVICES": "3",
        "NCCL_COMM_ID": "10.0.0.1:4444",
        "TORCHELASTIC_RUN_ID": "7",
        "MASTER_ADDR": "node1",
        "RANK": "3",
        "SLURM_JOB_ID": "77",
        "HF_TOKEN": "hf_secret",
        "TORCH_HUB_TOKEN": "secret",
        "UCX_SECRET": "secret",
        "HOME": "/home/someone",
    }
    found = environment(said | unsaid)
    assert found == said | {"NCCL_TOPO_FILE": "(a path)"}
    assert list(found) == sorted(found)


def test_driver(tmp_path: Path) -> None:
    assert driver(torch.device("cpu")) is None
    assert driver(GPU, tmp_path) is None
    (tmp_path / "amdgpu").mkdir()
    assert "amdgpu of Linux" in str(driver(GPU, tmp_path))
    (tmp_path / "amdgpu" / "version").write_text("6.2.4\n")
    assert driver(GPU, tmp_path) == "amdgpu 6.2.4"
    (tmp_path / "nvidia").mkdir()
    (tmp_path / "nvidia" / "version").write_text("580.95.05\n")
    assert driver(GPU, tmp_path) == "nvidia 580.95.05"


def test_versions_name_what_is_installed() -> None:
    found = versions()
    assert found["torch"] == torch.__version__ and "deepspeed" in found
    assert all(isinstance(version, str) for version in found.values())
