"""Every variable has a meaning: the longest begin of its name decides."""

import pytest

from hpcgeo.machines import machines
from hpcgeo.variables import KEPT, meaning


@pytest.mark.parametrize(
    ("name", "means"),
    [
        ("OMPI_MCA_btl", "plumbing"),
        ("TORCH_NCCL_ASYNC_ERROR_HANDLING", "plumbing"),
        ("NCCL_DEBUG_SUBSYS", "plumbing"),
        ("MIOPEN_USER_DB_PATH", "plumbing"),
        ("OMP_NUM_THREADS", "elsewhere"),
        ("NCCL_NET", "transport"),
        ("NCCL_NET_GDR_LEVEL", "transport"),
        ("FI_CXI_DEFAULT_CQ_SIZE", "transport"),
        ("GLOO_SOCKET_IFNAME", "transport"),
        ("NCCL_ALGO", "tuning"),
        ("OMP_PROC_BIND", "tuning"),
        ("PYTORCH_ALLOC_CONF", "tuning"),
        ("TORCHINDUCTOR_MAX_AUTOTUNE", "tuning"),
        ("TORCHINDUCTOR_CACHE_DIR", "plumbing"),
        ("SITE_NICE", "tuning"),
    ],
)
def test_the_longest_begin_decides(name, means):
    assert meaning(name) == means


def test_no_begin_stands_twice():
    assert len(set(KEPT)) == len(KEPT)


def test_what_jobs_set_for_the_network_is_transport():
    names = {
        line.text.partition("=")[0]
        for machine in machines().values()
        for line in machine.environment
        if line.text.startswith(("NCCL_", "FI_", "GLOO_", "UCX_"))
    }
    assert names and {name for name in names if meaning(name) != "transport"} == set()
