"""What a model answers does not depend on the threads that a rank has."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch

from hpcgeo.data.sample import Sample
from hpcgeo.maps.asking import PIECE, Asking


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_same_bits_from_any_number_of_threads():
    weight = torch.randn(2000, 300, generator=torch.Generator().manual_seed(0))
    sizes: list[int] = []

    def ask(samples: Sequence[Sample]) -> torch.Tensor:
        sizes.append(len(samples))
        assert torch.get_num_threads() == 1
        values = torch.stack([torch.from_numpy(sample.target) for sample in samples])
        return (values @ weight)[:, :, None, None]

    rng = np.random.default_rng(0)
    samples = [Sample((), rng.normal(size=2000).astype(np.float32)) for _ in range(3 * PIECE - 1)]
    found = []
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        found.append(Asking(ask, torch.device("cpu"))(samples))
    assert all(torch.equal(each, found[0]) for each in found)
    assert sorted(sizes) == sorted([PIECE, PIECE, PIECE - 1] * 3)
    plain = torch.stack([torch.from_numpy(sample.target) for sample in samples]) @ weight
    torch.testing.assert_close(found[0][:, :, 0, 0], plain, atol=1e-4, rtol=1e-4)
