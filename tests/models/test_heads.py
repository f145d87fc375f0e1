"""Heads: each query is answered by itself."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hpcgeo.errors import InputError
from hpcgeo.models.heads import LinearHead, PixelHead, VectorHead, sample_head

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


def test_a_linear_head_is_norm_and_matrix() -> None:
    backbone = nn.Module()
    backbone.vector_width = WIDTH
    head, vector = drawn(sample_head("linear", backbone, 7)), torch.randn(3, WIDTH)
    assert isinstance(head, LinearHead)
    theirs = nn.Sequential(nn.LayerNorm(WIDTH, eps=1e-6), nn.Linear(WIDTH, 7))
    theirs.load_state_dict(dict(zip(theirs.state_dict(), head.state_dict().values(), strict=True)))
    torch.testing.assert_close(head(vector), theirs(vector))


def test_a_head_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match=r"unknown head 'liner' \(did you mean 'linear'\?\)"):
        sample_head("liner", nn.Module(), 2)
    with pytest.raises(InputError, match="head linear: this backbone does not say the width"):
        sample_head("linear", nn.Module(), 2)


@pytest.mark.parametrize("local", [0, NEAR])
@pytest.mark.parametrize("size", [1, 7, 16, 100])
def test_each_query_is_answered_by_itself(local: int, size: int) -> None:
    head, (latents, queries, near) = pixel_head(local), asked(2, 16, local)
    whole = head(latents, queries, near)
    assert whole.shape == (2, 16, 3)
    given = [queries] if near is None else [queries, near]
    chunks = zip(*(tensor.split(size, dim=1) for tensor in given), strict=True)
    parts = [head(latents, *chunk) for chunk in chunks]
    assert torch.allclose(torch.cat(parts, dim=1), whole, atol=1e-5)


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
