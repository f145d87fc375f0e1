"""Optimizers that look at whole parameters, also where a rank holds shards of them.

LARS and LAMB scale an update by norms of the whole parameter: norms of shards are summed over the
ranks, one collective for all parameters that are cut alike. Muon needs the matrix itself: each is
gathered, made orthogonal on every rank, and cut again. All arithmetic but that is on local shards.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Replicate
from torch.optim import Optimizer

#: Of LARS, as in MAE's and MoCo v3's linear probes.
TRUST = 0.001
#: Of LAMB, and of AdamW beside Muon.
LAMB_EPS, ADAM_EPS = 1e-6, 1e-8
#: The quintic of Muon, its number of iterations and its guard against a matrix of zeros.
QUINTIC, ITERATIONS, MUON_EPS = (3.4445, -4.7750, 2.0315), 5, 1e-7


def local(tensor: Any) -> Any:
    """Return this rank's part of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def norms(parts: Sequence[Tensor], owners: Sequence[Tensor]) -> list[Tensor]:
    """Return the norm of each whole tensor, given this rank's part of it.

    Args:
        parts: of tensors that are cut as their owners.
        owners: plain tensors or DTensors; all ranks of their meshes call it together.
    """
    alike: dict[Any, list[int]] = defaultdict(list)
    for number, owner in enumerate(owners):
        key = (owner.device_mesh, owner.placements) if isinstance(owner, DTensor) else None
        alike[key].append(number)
    found: dict[int, Tensor] = {}
    for key, numbers in alike.items():
        squares = torch.stack(torch._foreach_norm([parts[n] for n in numbers])) ** 2
        if key is not None:
            mesh, placements = key
            sums = [Replicate() if p.is_replicate() else Partial() for p in placements]
            there = squares.to(mesh.device_type)  # offloaded parts lie on the host
            whole = DTensor.from_local(there, mesh, sums, run_check=False).full_tensor()
            squares = whole.to(squares.device)
        found |= dict(zip(numbers, squares.sqrt().unbind(), strict=True))
    return [found[number] for number in range(len(owners))]


#: Of Newton-Schulz iterations, which put right what it loses.
PRECISION = torch.bfloat16


def orthogonal(matrix: Tensor) -> Tensor:
    """Return roughly U V of the matrix U S V, by Newton-Schulz iterations in `PRECISION`.

    Args:
        matrix: (rows, columns).
    """
    a, b, c = QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.to(PRECISION)
    x = x.T if tall else x
    x = x / x.norm().clamp(min=MUON_EPS)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.T if tall else x).to(matrix.dtype)


class LARS(Optimizer):
    """SGD with momentum whose step is, for each matrix, a fixed part of its norm."""

    def __init__(self, groups: Iterable[dict[str, Any]], momentum: float) -> None:
        """Take groups with `weight_decay`, and `adapt`: whether norms scale the step."""
        super().__init__(groups, {"lr": 0.0, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            owners = _with_gradient(group)
            parameters = [local(p) for p in owners]
            updates = [local(p.grad) for p in owners]
            if group["adapt"] and owners:
                updates = _plus(updates, parameters, group["weight_decay"])
                updates = _scaled(updates, parameters, owners, TRUST)
            for owner, parameter, update in zip(owners, parameters, updates, strict=True):
                state = self.state[owner]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(owner)
                buffer = local(state["momentum_buffer"])
                buffer.mul_(group["momentum"]).add_(update)
                parameter.add_(buffer, alpha=-group["lr"])


class LAMB(Optimizer):
    """Adam whose step is, for each matrix, as long as the matrix itself, times the rate."""

    def __init__(self, groups: Iterable[dict[str, Any]], betas: tuple[float, float]) -> None:
        """Take groups with `weight_decay`, and `adapt`: whether norms scale the step."""
        super().__init__(groups, {"lr": 0.0, "betas": betas})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            owners = _with_gradient(group)
            parameters = [local(p) for p in owners]
            updates = [_adam(self.state[p], p, group["betas"], LAMB_EPS) for p in owners]
            if group["adapt"] and owners:
                updates = _plus(updates, parameters, group["weight_decay"])
                updates = _scaled(updates, parameters, owners, 1.0)
            for parameter, update in zip(parameters, updates, strict=True):
                parameter.add_(update, alpha=-group["lr"])


class Muon(Optimizer):
    """Momentum made orthogonal for the matrices of blocks, AdamW for all other parameters.

    The update has the root mean square that AdamW's usually has (Liu et al. 2025, equation 4), so
    one learning rate serves both.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], momentum: float, betas: tuple[float, float]
    ) -> None:
        """Take groups with `weight_decay`, and `orthogonal`: whether they are such matrices."""
        super().__init__(groups, {"lr": 0.0, "momentum": momentum, "betas": betas})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for owner in _with_gradient(group):
                if group["orthogonal"]:
                    update = self._orthogonal(owner, group["momentum"])
                else:
                    update = _adam(self.state[owner], owner, group["betas"], ADAM_EPS)
                parameter = local(owner)
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"])

    def _orthogonal(self, owner: Any, momentum: float) -> Tensor:
        state = self.state[owner]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(owner)
        buffer, gradient = state["momentum_buffer"], owner.grad
        local(buffer).lerp_(local(gradient), 1 - momentum)
        ahead = local(gradient).lerp(local(buffer), momentum)  # Nesterov
        scale = 0.2 * math.sqrt(max(owner.shape))
        if not isinstance(owner, DTensor):
            return orthogonal(ahead) * scale
        mesh, placements = owner.device_mesh, owner.placements
        cut = DTensor.from_local(
            ahead, mesh, placements, run_check=False, shape=owner.shape, stride=owner.stride()
        )
        whole = orthogonal(cut.full_tensor()) * scale
        everywhere = DTensor.from_local(whole, mesh, [Replicate()] * mesh.ndim, run_check=False)
        return everywhere.redistribute(placements=placements).to_local()


def _with_gradient(group: dict[str, Any]) -> list[Any]:
    return [parameter for parameter in group["params"] if parameter.grad is not None]


def _plus(updates: list[Tensor], parameters: list[Tensor], decay: float) -> list[Tensor]:
    return list(torch._foreach_add(updates, parameters, alpha=decay))


def _scaled(
    updates: list[Tensor], parameters: list[Tensor], owners: list[Any], trust: float
) -> list[Tensor]:
    """Return updates as long as `trust` times their parameter; as they are where one is zero."""
    lengths = zip(norms(parameters, owners), norms(updates, owners), strict=True)
    ratios = [torch.where((p > 0) & (u > 0), trust * p / u, 1.0) for p, u in lengths]
    return [update * ratio for update, ratio in zip(updates, ratios, strict=True)]


def _adam(state: dict[str, Any], owner: Any, betas: tuple[float, float], eps: float) -> Tensor:
    """Advance Adam's moments of a parameter; return its direction, of this rank's shard."""
    if not state:
        state["step"] = torch.tensor(0.0)  # on the host: read without waiting for the device
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(owner), torch.zeros_like(owner)
    state["step"] += 1
    number, gradient = state["step"].item(), local(owner.grad)
    mean, square = local(state["exp_avg"]), local(state["exp_avg_sq"])
    mean.lerp_(gradient, 1 - betas[0])
    square.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
    deviation = (square / (1 - betas[1] ** number)).sqrt_().add_(eps)
    return mean / (1 - betas[0] ** number) / deviation
