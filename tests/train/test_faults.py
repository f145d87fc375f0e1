"""What ended a run, in one line: the texts of NCCL, RCCL, gloo and of memory that is out."""

import os
import pickle
import re
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from hpcgeo.errors import FaultError, out_of_memory
from hpcgeo.sweep.failures import ending
from hpcgeo.train.faults import explain, explained
from hpcgeo.train.nccl import flight_record
from tests.distributed import on_ranks

HEAD = "NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.cpp:94, "
MORE = " (run with NCCL_DEBUG=WARN for details), NCCL version 2.22.3\n"


def nccl(kind: str, last: str) -> str:
    """Return an error as torch words it."""
    return f"{HEAD}{kind}{MORE}{kind}: Some call failed.\nLast error:\n{last}"


@pytest.mark.parametrize(
    ("kind", "last", "cause", "todo"),
    [
        (
            "ncclInvalidUsage",
            "Duplicate GPU detected : rank 1 and rank 0 both on CUDA device 1000",
            *("two ranks drive one device", "start one rank a device"),
        ),
        (
            "ncclInvalidUsage",
            "Error: network AWS Libfabric not found.",
            *("its network plugin is not found", "load the module of the plugin"),
        ),
        (
            "ncclSystemError",
            "Error while creating shared memory segment /dev/shm/nccl-Fk8 (size 33030528)",
            *("shared memory is full", "--shm-size"),
        ),
        (
            "ncclSystemError",
            "Call to ibv_reg_mr failed with error Cannot allocate memory",
            *("memory cannot be pinned", "ulimit -l"),
        ),
        (
            "ncclSystemError",
            "socketPollConnect: connect to 10.0.0.7<4242> returned Connection timed out",
            *("the hosts do not reach each other", "NCCL_SOCKET_IFNAME"),
        ),
        (
            "ncclUnhandledCudaError",
            "Cuda failure 'uncorrectable ECC error encountered'",
            *("a device failed", "without that host"),
        ),
        ("ncclInternalError", "Something\nof two lines", "it failed", "NCCL_DEBUG=INFO"),
        ("ncclInternalError", "", "it failed: NCCL error in: ", "NCCL_DEBUG=INFO"),
    ],
)
def test_an_error_of_nccl_keeps_its_text(kind: str, last: str, cause: str, todo: str) -> None:
    said = explain(dist.DistBackendError(nccl(kind, last)))
    assert said is not None and said.startswith(f"NCCL 2.22.3: {cause}")
    assert " ".join(last.split()) in said and kind in said and todo in said and "\n" not in said
    found = ending(f"hpcgeo: rank 0 of 2 on n: starting after step 0: {said}", 1)
    assert found.status == "failed" and " ".join(last.split()) in found.error


def test_the_device_and_rccl_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "hip", "7.1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "AMD Instinct MI250X")
    said = explain(dist.DistBackendError(nccl("ncclInternalError", "x")))
    assert said is not None
    assert said.startswith(
        "RCCL 2.22.3: it failed: x (ncclInternalError; AMD Instinct MI250X, cuda:3)"
    )


@pytest.mark.parametrize(
    "text",
    [
        nccl("ncclRemoteError", "socketProgress: Connection closed by remote peer n2<4242>"),
        nccl("ncclSystemError", "Call to recv failed : Connection reset by peer"),
        "[1] is setting up NCCL communicator and retrieving ncclUniqueId from [0] via c10d "
        "key-value store by key '0', but store->get('0') got error: Connection reset by peer",
        "recvValue failed on SocketImpl(fd=3): failed to recv, got 0 bytes",
        "[x/gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:31322",
    ],
)
def test_a_peer_that_is_gone_is_what_is_lost(text: str) -> None:
    said = explain(dist.DistBackendError(text))
    assert said is not None and said.startswith("lost the other ranks (")
    assert "/gloo/" not in said


def test_a_collective_that_waits_too_long() -> None:
    text = (
        "[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7, "
        "OpType=ALLREDUCE) ran for 1200000 milliseconds before timing out."
    )
    said = explain(dist.DistBackendError(text))
    assert (
        said is not None and said.startswith("a collective was given up (") and "SeqNum=7" in said
    )


MEMORY = (
    "CUDA out of memory. Tried to allocate 20.00 GiB",
    "HIP out of memory. Tried to allocate 20.00 GiB",
    "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
    "HIP error: out of memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "CUDA error: HIPBLAS_STATUS_ALLOC_FAILED when calling `hipblasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "miopenStatusAllocFailed",
    "rocblas_status_memory_error",
    "Triton Error [CUDA]: CUDA_ERROR_OUT_OF_MEMORY",
    "[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory: you tried to allocate 64 bytes",
    nccl("ncclUnhandledCudaError", "Cuda failure 2 'out of memory'"),
    nccl("ncclUnhandledCudaError", "Failed to CUDA calloc async 4194304 bytes"),
)


@pytest.mark.parametrize("text", MEMORY)
def test_memory_is_out_in_the_words_of_every_library(text: str) -> None:
    """In a run and in a sweep alike; also where the text alone arrives, after a traceback."""
    kind = dist.DistBackendError if "NCCL" in text else RuntimeError
    said = explain(kind(text))
    assert said is not None and said.startswith("out of memory (") and "\n" not in said
    where = "hpcgeo: rank 0 of 2 on node1: "
    assert ending(f"{where}computing after step 0: {said}", 1).status == "out_of_memory"
    line = out_of_memory(text)
    assert ending(f"{where}RuntimeError: {line}", 1).status == "out_of_memory"


def test_an_error_that_is_a_bug_stays_one() -> None:
    assert explain(RuntimeError("shapes (2, 3) and (4, 5) do not fit")) is None
    assert explain(RuntimeError("libx.so: cannot allocate memory in static TLS block")) is None


def test_readers_that_may_open_no_more_files() -> None:
    text = "Too many open files. Communication with the workers is no longer possible. Please ..."
    assert "ulimit -n" in str(explain(RuntimeError(text)))


def test_the_one_that_failed_first_is_named() -> None:
    told: list[tuple[str, bool]] = []

    def first(text: str, *, follows: bool) -> str | None:
        told.append((text, follows))
        return "first failed rank 1 on n2: out of memory" if follows else None

    def fail(error: Exception) -> str:
        with pytest.raises((FaultError, KeyError)) as caught, explained(lambda: "here", first):
            raise error
        return str(caught.value)

    gone = "Connection closed by peer"
    assert fail(dist.DistError(gone)) == (
        f"here: lost the other ranks ({gone}); first failed rank 1 on n2: out of memory"
    )
    fail(MemoryError())
    fail(KeyError("x"))
    assert [follows for _, follows in told] == [True, False, False]
    assert re.match("here: out of memory", told[1][0]) and told[2][0] == "here: KeyError: 'x'"


def recorded(folder: str) -> str:

    os.environ["TORCH_FR_DUMP_TEMP_FILE"] = f"{folder}/trace_"
    before = flight_record(dist.get_rank())
    os.environ["TORCH_FR_BUFFER_SIZE"] = "100"
    return before + flight_record(dist.get_rank())


def test_the_flight_recorder_writes_where_it_is_on(tmp_path: Path) -> None:
    said = on_ranks(recorded, 2, str(tmp_path))
    assert said[1] == f"; torch's flight recorder wrote {tmp_path}/trace_1"
    assert "entries" in pickle.loads((tmp_path / "trace_1").read_bytes())
