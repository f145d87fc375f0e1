"""Networks of several objectives that share a backbone."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Combination(nn.Module):
    """The weighted sum of the losses of networks, whose backbone is one."""

    def __init__(self, networks: Mapping[str, Any], weights: Mapping[str, float]) -> None:
        """Take networks of one architecture by the names of their terms, and their weights."""
        super().__init__()
        self.weights = weights
        self.backbone = next(iter(networks.values())).backbone
        for network in networks.values():
            del network.backbone
            # Not registered: its parameters are those of the combination, under one name.
            object.__setattr__(network, "backbone", self.backbone)
        self.terms = nn.ModuleDict(networks)
        self.replicated = [one for term in self._with("replicated") for one in term.replicated]
        if self._with("gather"):
            self.gather = lambda x: x
        if self._with("after_step"):
            self.after_step = self._after_step

    def stacks(self) -> list[list[nn.Module]]:
        """Return the blocks of the backbone, and those that a term has beside it."""
        shared: list[list[nn.Module]] = self.backbone.stacks()
        own = {id(unit) for stack in shared for unit in stack}
        others = [stack for term in self._each() for stack in term.stacks()]
        return shared + [stack for stack in others if id(stack[0]) not in own]

    def forward(self, inputs: Mapping[str, Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return the losses.

        Args:
            inputs: of each term, by its name.

        Returns:
            {"loss": their weighted sum, and of each term its loss and what else it tells}
        """
        scalars: dict[str, Tensor] = {}
        losses = []
        for name, term in self.terms.items():
            if hasattr(term, "gather"):
                term.gather = self.gather  # type: ignore[assignment]
            found = term(**inputs[name])
            losses.append(self.weights[name] * found["loss"])
            scalars |= {f"{name}_{key}": value for key, value in found.items()}
        return {"loss": torch.stack(losses).sum(), **scalars}

    def _after_step(self) -> None:
        for term in self._with("after_step"):
            term.after_step()

    def _each(self) -> list[Any]:
        return list(self.terms.values())

    def _with(self, attribute: str) -> list[Any]:
        return [term for term in self._each() if hasattr(term, attribute)]
