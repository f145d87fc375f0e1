"""MoCo v3 in the order of its paper (Chen et al. 2021, arXiv 2104.02057, algorithm 1).

Letters: B batch, R ranks, F numbers that are compared.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpcgeo.models.projection import Describer, Projection
from hpcgeo.models.teacher import follow
from hpcgeo.objectives.contrastive.objective import ContrastiveOptions
from hpcgeo.objectives.objective import Material
from hpcgeo.phases import phase


class MoCo(Describer):
    """Queries of what is trained, keys of its moving average, of all ranks."""

    def __init__(self, material: Material, config: ContrastiveOptions) -> None:
        shape = material.architecture, material.bands, config.hidden, config.features
        super().__init__(*shape)
        self.config = config
        self.predict = Projection((config.features, config.hidden, config.features))
        self.teacher = Describer(*shape).requires_grad_(False)
        self.gather: Callable[[Tensor], Tensor] = lambda x: x

    def stacks(self) -> list[list[nn.Module]]:
        """Return the blocks of student and teacher."""
        return super().stacks() + self.teacher.stacks()

    def forward(self, views: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Return the loss.

        Args:
            views: two of each image, (B, bands, height, width) each, normalised per band.

        Returns:
            {"loss": cross entropy of finding an image's other view among those of all ranks, by
            either view, times twice the temperature as in the paper; float32}
        """
        both = torch.cat(views)
        queries = _unit(self.predict(self.project(self.vectors(both)))).chunk(2)
        with phase("teacher"), torch.no_grad():
            keys = _unit(self.teacher.project(self.teacher.vectors(both))).chunk(2)
        first, second = (self.gather(each) for each in queries)  # (R B, F)
        others = [self.gather(each) for each in keys]
        number = torch.arange(len(first), device=first.device)
        temperature = self.config.temperature
        losses = [
            F.cross_entropy(query @ key.T / temperature, number)
            for query, key in zip((first, second), others[::-1], strict=True)
        ]
        return {"loss": 2 * temperature * sum(losses, torch.zeros_like(losses[0]))}

    def after_step(self) -> None:
        """Have the teacher follow."""
        follow(self.teacher, self, self.config.momentum)


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x.float(), dim=1)
