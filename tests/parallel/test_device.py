"""One rank a device: what ranks say of theirs in the store is compared before NCCL does."""

from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
from torch.distributed import HashStore

from hpcgeo.errors import InputError
from hpcgeo.parallel.device import refuse_shared, usable_device

#: Long enough for a store within this process.
ONCE = timedelta(milliseconds=20)

GPU = "75f5a1b2-0000-4000-8000-00000000000"


def meet(
    monkeypatch: pytest.MonkeyPatch, ranks: list[tuple[str, str, int]], visible: list[str]
) -> list[str]:
    """Return what each rank is told; a rank is its host, identifier and number of its device."""
    store, told = HashStore(), []
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA L4")
    for rank in [
        *range(1, len(ranks)),
        0,
        *range(1, len(ranks)),
    ]:  # 0 reads all
        host, identifier, number = ranks[rank]
        properties = SimpleNamespace(uuid=identifier)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device, p=properties: p)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible[rank])
        store.set_timeout(ONCE)
        try:
            refuse_shared(store, rank, len(ranks), host, torch.device("cuda", number))
            told.append("")
        except InputError as error:
            assert error.shared
            told.append(str(error))
        except RuntimeError:  # nobody has compared yet
            continue
    return told


def test_two_ranks_of_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    told = meet(monkeypatch, [("desk", f"{GPU}1", 0)] * 2, ["", ""])
    assert set(told) == {
        "ranks 0 and 1 on desk drive one and the same device, NVIDIA L4: start one rank a device, "
        "or show each rank its own (CUDA_VISIBLE_DEVICES, srun --gpus-per-task=1)"
    }


@pytest.mark.parametrize(
    ("ranks", "visible"),
    [
        ([("n1", f"{GPU}1", 0), ("n1", f"{GPU}2", 1)], ["0,1", "0,1"]),
        ([("n1", f"{GPU}1", 0), ("n1", f"{GPU}2", 0)], ["0", "0"]),  # a cgroup for each
        ([("n1", f"{GPU}1", 0), ("n2", f"{GPU}1", 0)], ["0", "0"]),
        ([("n1", f"{GPU}1", 0), ("n1", f"{GPU}1", 0)], ["0", "1"]),  # partitions of one
        ([("n1", "00000000-0000-0000-0000-000000000000", 0)] * 2, ["0", "0"]),  # not known
    ],
)
def test_a_device_each(
    monkeypatch: pytest.MonkeyPatch, ranks: list[tuple[str, str, int]], visible: list[str]
) -> None:
    assert set(meet(monkeypatch, ranks, visible)) == {""}


def test_an_accelerator_that_is_not_there_is_not_used(monkeypatch):
    def current(check_available: bool = False) -> torch.device | None:
        return None if check_available else torch.device("cuda")

    monkeypatch.setattr(torch.accelerator, "current_accelerator", current)
    assert usable_device() == torch.device("cpu")
