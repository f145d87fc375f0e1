"""Heads of many settings as one: each is what the plain optimizer makes of it alone."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hpcgeo.evaluate.protocols.attentive import Attentive
from hpcgeo.evaluate.protocols.lars import MaeLinear
from hpcgeo.evaluate.protocols.training import AdamW, batches, drawn, rate
from hpcgeo.kinds.table import kind_of
from hpcgeo.kinds.target import IGNORED
from hpcgeo.optimizers.layerwise import LARS
from tests.evaluate.protocols.features import classes, labels, numbers, split, target

SETTINGS = [{"lr": lr, "weight_decay": decay} for lr in (0.1, 3.0) for decay in (0.0, 0.01)]


@pytest.mark.parametrize("setting", range(4))
def test_the_linear_probe_of_mae_is_that_of_its_modules(setting):
    """Batch norm and a linear layer of torch, and our LARS, in the order of MAE's own loop."""
    vectors, truth = classes(90, 12, 3)
    part, epochs, batch = split(vectors, truth), 12, 32
    protocol = MaeLinear(epochs=epochs, warm_up=3, batch=batch)
    found = protocol.fit(part, target("classification", 3), SETTINGS, 5)
    norm = torch.nn.BatchNorm1d(12, affine=False, eps=1e-6)
    layer = torch.nn.Linear(12, 3)
    with torch.no_grad():
        layer.weight.copy_(drawn((12, 3), 0.01, 1, 0, 5)[0].T)
        layer.bias.zero_()
    decay = SETTINGS[setting]["weight_decay"]
    groups = [
        {"params": [layer.weight], "weight_decay": decay, "adapt": True},
        {"params": [layer.bias], "weight_decay": 0.0, "adapt": False},
    ]
    optimizer = LARS(groups, momentum=0.9)
    x, y = torch.from_numpy(vectors), torch.from_numpy(truth)
    for epoch, rows in batches(90, batch, epochs, 5):
        for group in optimizer.param_groups:
            group["lr"] = SETTINGS[setting]["lr"] * batch / 256 * rate(epoch, epochs, 3)
        optimizer.zero_grad()
        F.cross_entropy(layer(norm(x[rows])), y[rows]).backward()
        optimizer.step()
    norm.eval()
    wanted = layer(norm(x)).detach()
    torch.testing.assert_close(found.answers(x)[setting], wanted, atol=1e-6, rtol=1e-5)


def test_adamw_of_many_settings_is_torchs_of_each():
    rates, decays = torch.tensor([0.01, 0.1, 0.3]), torch.tensor([0.0, 0.1, 0.5])
    begin = torch.randn(3, 4, 5, generator=torch.manual_seed(0))
    many = begin.clone()
    ours = AdamW([many], rates, decays)
    alone = [each.clone().requires_grad_() for each in begin]
    theirs = [
        torch.optim.AdamW([each], lr=float(lr), weight_decay=float(decay))
        for each, lr, decay in zip(alone, rates, decays, strict=True)
    ]
    for step in range(5):
        gradient = torch.randn(3, 4, 5, generator=torch.manual_seed(step))
        ours.step([gradient], 1.0)
        for each, one, optimizer in zip(alone, gradient, theirs, strict=True):
            each.grad = one
            optimizer.step()
    torch.testing.assert_close(many, torch.stack(alone).detach(), atol=1e-6, rtol=1e-6)


def test_every_epoch_has_all_samples_and_half_a_cosine():
    seen = list(batches(10, 5, 3, seed=0))
    assert [epoch for epoch, _ in seen] == [0, 0.5, 1, 1.5, 2, 2.5]
    for first in range(0, 6, 2):
        assert sorted(torch.cat([rows for _, rows in seen[first : first + 2]]).tolist()) == [
            *range(10)
        ]
    assert len(list(batches(11, 5, 1, seed=0))) == 2
    assert [rate(epoch, 20, 4) for epoch in (0, 2, 4, 12)] == [0, 0.5, 1, 0.5]


@pytest.mark.parametrize(
    ("make", "kind"), [(classes, "classification"), (labels, "multilabel"), (numbers, "regression")]
)
def test_every_kind_is_learned(make, kind):
    vectors, truth = make(300, 8, 3)
    if kind == "classification":
        truth[:9] = IGNORED
    tokens = np.repeat(vectors[:, None], 3, axis=1)
    tokens[:, 1:] = 0.1 * np.random.default_rng(0).normal(size=tokens[:, 1:].shape)
    settings = [{"lr": lr, "weight_decay": 0.0} for lr in (0.0, 10.0)]
    fits = {MaeLinear(batch=32): (vectors, settings)}
    fits[Attentive(epochs=30, batch=50)] = (tokens, [settings[0], {**settings[0], "lr": 0.02}])
    for protocol, (seen, tried) in fits.items():
        kinds = target(kind, 3)
        model = protocol.fit(split(seen, truth), kinds, tried, 0)
        with torch.no_grad():
            losses = [
                float(kind_of(kinds).loss(answer[9:], torch.from_numpy(truth[9:])).mean())
                for answer in model.answers(torch.from_numpy(seen))
            ]
        assert losses[1] < 0.8 * losses[0], protocol.title


def test_settings_do_not_see_each_other():
    tokens = np.random.default_rng(0).normal(size=(40, 5, 8)).astype(np.float32)
    part = split(tokens, np.arange(40) % 2)
    settings = [{"lr": lr, "weight_decay": 0.1} for lr in (0.01, 0.001)]
    protocol = Attentive(epochs=3, batch=16)
    together = protocol.fit(part, target("classification", 2), settings, 0)
    alone = protocol.fit(part, target("classification", 2), settings[1:], 0)
    asked = torch.from_numpy(tokens)
    torch.testing.assert_close(
        together.answers(asked)[1], alone.answers(asked)[0], atol=1e-6, rtol=1e-5
    )
