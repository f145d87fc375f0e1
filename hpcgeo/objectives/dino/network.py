"""DINO in the order of its papers (arXiv 2104.14294; centring and spread: arXiv 2304.07193).

Letters: B batch, V large views (two), R ranks, K prototypes, W width of the backbone.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpcgeo.errors import InputError
from hpcgeo.models.projection import Describer
from hpcgeo.models.teacher import follow
from hpcgeo.objectives.dino.objective import LARGE, DinoOptions
from hpcgeo.objectives.objective import Material
from hpcgeo.phases import phase

#: Of Sinkhorn-Knopp, as of DINOv2.
ROUNDS = 3


class Assigner(Describer):
    """A describer, and the prototypes that its views are held against."""

    def __init__(self, material: Material, config: DinoOptions) -> None:
        super().__init__(material.architecture, material.bands, config.hidden, config.features)
        self.prototypes = nn.Linear(config.features, config.prototypes, bias=False)

    def cosines(self, vectors: Tensor) -> Tensor:
        """Return the cosines (B, K) of vectors (B, W), projected, with the prototypes."""
        own = F.normalize(self.project(vectors).float(), dim=1)
        return own @ F.normalize(self.prototypes.weight.float(), dim=1).T


class DINO(Assigner):
    """What is trained assigns small and large views as its moving average assigns large ones."""

    def __init__(self, material: Material, config: DinoOptions) -> None:
        """Make it.

        Raises:
            InputError: the backbone does not fit small views.
        """
        super().__init__(material, config)
        self.config = config
        if config.local_views:
            side = config.local_size
            try:
                material.architecture.num_patches((side, side))
            except InputError as error:
                raise InputError(f"objective.local_size {side}: {error}") from None
        self.teacher = Assigner(material, config).requires_grad_(False)
        self.gather: Callable[[Tensor], Tensor] = lambda x: x

    def stacks(self) -> list[list[nn.Module]]:
        """Return the blocks of student and teacher."""
        return super().stacks() + self.teacher.stacks()

    def forward(self, views: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Return the losses.

        Args:
            views: (B, bands, height, width) each, normalised per band; the first two are large.

        Returns:
            {"loss": distil + koleo times its factor, "distil": cross entropy of the assignments of
            every view and those of every other large one, "koleo": how crowded the features of
            large views are}, float32
        """
        large, small = views[:LARGE], views[LARGE:]
        vectors = self.vectors(torch.cat(large))  # (V B, W)
        said = [*self.cosines(vectors).chunk(LARGE)]
        if small:
            said += self.cosines(self.vectors(torch.cat(small))).chunk(len(small))
        with phase("teacher"), torch.no_grad():
            taught = self.teacher.cosines(self.teacher.vectors(torch.cat(large)))
            targets = self._assigned(taught).chunk(LARGE)
        losses = [
            -(target * (one / self.config.temperature).log_softmax(1)).sum(1).mean()
            for i, target in enumerate(targets)
            for j, one in enumerate(said)
            if i != j
        ]
        distil = torch.stack(losses).mean()
        koleo = torch.stack([crowded(self.gather(each)) for each in vectors.chunk(LARGE)]).mean()
        return {"loss": distil + self.config.koleo * koleo, "distil": distil, "koleo": koleo}

    def after_step(self) -> None:
        """Have the teacher follow."""
        follow(self.teacher, self, self.config.momentum)

    def _assigned(self, cosines: Tensor) -> Tensor:
        """Return assignments (V B, K), each of sum 1, that use the prototypes equally over all
        ranks: Sinkhorn-Knopp, which ends with the samples' sums."""
        q = (cosines / self.config.teacher_temperature).exp()
        for _ in range(ROUNDS):
            q = q / self.gather(q.sum(0)[None]).sum(0)
            q = q / q.sum(1, keepdim=True)
        return q


def crowded(vectors: Tensor) -> Tensor:
    """Return the Kozachenko-Leonenko loss of vectors (B, W): minus the mean logarithm of the
    distance of their directions to the nearest other (arXiv 1806.03198)."""
    unit = F.normalize(vectors.float(), dim=1)
    with torch.no_grad():
        near = (unit @ unit.T).fill_diagonal_(-1).argmax(1)
    return -(F.pairwise_distance(unit, unit[near], eps=1e-8) + 1e-8).log().mean()
