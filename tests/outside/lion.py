"""Lion (Chen et al. 2023, arXiv 2302.06675): steps of one length, signs of a momentum."""

import torch

from hpcgeo.optimizers.layerwise import local
from hpcgeo.optimizers.table import Optimizer


class Lion(torch.optim.Optimizer):
    def __init__(self, groups, betas):
        super().__init__(groups, {"lr": 0.0, "betas": betas})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            (ahead, behind), rate = group["betas"], group["lr"]
            for owner in (p for p in group["params"] if p.grad is not None):
                state = self.state[owner]
                if not state:
                    state["exp_avg"] = torch.zeros_like(owner)
                weights, gradient, mean = map(local, (owner, owner.grad, state["exp_avg"]))
                weights.mul_(1 - rate * group["weight_decay"])
                weights.add_(gradient.lerp(mean, ahead).sign(), alpha=-rate)
                mean.lerp_(gradient, 1 - behind)


def make(groups, optim):
    decays = [optim.weight_decay * group.matrices for group in groups]
    chosen = zip(groups, decays, strict=True)
    return Lion([{"params": g.parameters, "weight_decay": w} for g, w in chosen], optim.betas)


LION = Optimizer("Lion", 4, 4, ("betas",), False, "Chen et al. 2023, arXiv 2302.06675", make)
