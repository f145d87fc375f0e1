"""Heads: each query is answered by itself, so in chunks of any size."""

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hpcgeo.models.heads import PixelHead, VectorHead, chunked

WIDTH, LATENTS, FEATURES, NEAR = 32, 6, 10, 5


def drawn(head: Any) -> Any:
    torch.manual_seed(0)
    for parameter in head.parameters():
        nn.init.normal_(parameter, 0, 0.3)
    return head


def pixel_head(local: int) -> PixelHead:
    return drawn(PixelHead(WIDTH, 4, FEATURES, 3, local=local))


def asked(samples: int, queries: int, local: int) -> tuple[Tensor, Tensor, Tensor | None]:
    near = torch.randn(samples, queries, local) if local else None
    return torch.randn(samples, LATENTS, WIDTH), torch.randn(samples, queries, FEATURES), near


def test_a_vector_head_reads_all_latents_in_any_order() -> None:
    head = drawn(VectorHead(WIDTH, 4, 7))
    latents = torch.randn(3, LATENTS, WIDTH)
    answer = head(latents)
    assert answer.shape == (3, 7)
    assert torch.allclose(head(latents.flip(1)), answer, atol=1e-5)
    for place in range(LATENTS):
        other = latents.clone()
        other[:, place] += torch.randn(WIDTH)
        assert not torch.allclose(head(other), answer, atol=1e-3)


@pytest.mark.parametrize("local", [0, NEAR])
@pytest.mark.parametrize("size", [1, 7, 16, 100])
def test_chunks_give_the_same(local: int, size: int) -> None:
    head, (latents, queries, near) = pixel_head(local), asked(2, 16, local)
    whole = head(latents, queries, near)
    assert whole.shape == (2, 16, 3)
    assert torch.allclose(chunked(head, latents, queries, near, size), whole, atol=1e-5)


@pytest.mark.parametrize("closed", ["query", "mlp", "both"])
def test_what_lies_near_enters_the_query_and_the_mlp(closed: str) -> None:
    head, (latents, queries, near) = pixel_head(NEAR), asked(1, 1, NEAR)
    assert near is not None
    near.requires_grad_()
    with torch.no_grad():
        if closed != "mlp":
            head.embed.weight[:, FEATURES:] = 0
        if closed != "query":
            head.mlp[0].weight[:, WIDTH:] = 0
    [gradient] = torch.autograd.grad(head(latents, queries, near).sum(), near)
    assert bool(gradient.any()) == (closed != "both")


@pytest.mark.parametrize("local", [0, NEAR])
def test_no_sample_no_answer_and_zero_gradients(local: int) -> None:
    head, (latents, queries, near) = pixel_head(local), asked(0, 16, local)
    vector = drawn(VectorHead(WIDTH, 4, 7))
    answers = [head(latents, queries, near), vector(latents)]
    assert [answer.shape for answer in answers] == [(0, 16, 3), (0, 7)]
    sum(answer.sum() for answer in answers).backward()
    for parameter in (*head.parameters(), *vector.parameters()):
        assert parameter.grad is not None and not parameter.grad.any()
    assert chunked(head, latents, queries, near, 5).shape == (0, 16, 3)


class Peak(TorchDispatchMode):
    """Counts the bytes of the tensors that live at once, beside those that were there before."""

    def __init__(self, before: list[Tensor]) -> None:
        super().__init__()
        self.before = {tensor.untyped_storage().data_ptr() for tensor in before}
        self.alive: dict[int, int] = {}  # of a storage, by its place
        self.most = 0

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None):
        result = operator(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage.data_ptr() in self.before:
                    continue
                self.alive[storage.data_ptr()] = storage.nbytes()
                weakref.finalize(storage, self.alive.pop, storage.data_ptr(), None)
        self.most = max(self.most, sum(self.alive.values()))
        return result


def peak(queries: int, size: int) -> int:
    """Return the most bytes alive at once, less the answers."""
    head, given = pixel_head(NEAR), asked(2, queries, NEAR)
    with torch.no_grad(), Peak([*given, *head.parameters()]) as measured:
        answers = chunked(head, *given, size)
    return measured.most - answers.untyped_storage().nbytes()


def test_memory_does_not_grow_with_the_queries() -> None:
    # Unchunked it does: the measure sees it.
    assert peak(1024, 1024) > 3 * peak(256, 256)
    assert peak(1024, 64) <= peak(256, 64)
    assert peak(1024, 64) < peak(1024, 1024) / 4
