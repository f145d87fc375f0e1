"""Initial weights: a law for every kind of parameter, the same bits for any part of its rows."""

import pytest
import torch

from hpcgeo.models.initialise import draw


@pytest.mark.parametrize("shape", [(12, 8), (12, 8, 3, 3), (12, 1, 5, 2)])
def test_matrices_are_xavier_and_convolutions_he_uniform_row_by_row(shape: tuple[int, ...]) -> None:
    whole = draw("stem.weight", shape, slice(0, 12), seed=3)
    parts = [draw("stem.weight", shape, rows, seed=3) for rows in (slice(0, 5), slice(5, 12))]
    assert whole.shape == shape and torch.equal(torch.cat(parts), whole)
    torch.manual_seed(0)
    law = torch.nn.init.xavier_uniform_ if len(shape) == 2 else torch.nn.init.kaiming_uniform_
    reference = law(torch.empty(shape))
    for values in (whole, -whole):
        assert values.max().item() == pytest.approx(reference.abs().max().item(), rel=0.1)


def test_other_rules() -> None:
    assert not draw("tasks.log_variance", (4,), slice(0, 4), seed=0).any()
    latents = draw("perceiver.latent_token", (500, 96), slice(100, 500), seed=0)
    assert latents.shape == (400, 96) and latents.std().item() == pytest.approx(0.02, rel=0.02)
    with pytest.raises(ValueError, match=r"no rule to initialise parameter stem\.gain of shape"):
        draw("stem.gain", (3, 3), slice(0, 3), seed=0)
    with pytest.raises(ValueError, match="no rule"):
        draw("stem.weight", (3, 3, 3), slice(0, 3), seed=0)
