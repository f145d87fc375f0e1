"""GFM in the order of its paper (Mendieta et al. 2023, arXiv 2302.04476).

Letters: B batch, K cells, C width of the student's features, D of the teacher's.
"""

from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from hpcgeo.models.teacher import Teacher, follow, stage_of
from hpcgeo.objectives.gfm.objective import GfmOptions
from hpcgeo.objectives.objective import Material
from hpcgeo.objectives.simmim.network import SimMIM
from hpcgeo.phases import phase


class GFM(SimMIM):
    """SimMIM whose features, projected, have the direction of a teacher's.

    The student sees what is left of an image, the teacher all of it. Features are the mean of the
    places after a stage.
    """

    config: GfmOptions

    def __init__(self, material: Material, architecture: Any, config: GfmOptions) -> None:
        """Make it.

        Args:
            material: of the student.
            architecture: of the teacher.
            config: the options.

        Raises:
            InputError: cells, stages or sizes do not fit.
        """
        super().__init__(material.architecture, material.bands, material.chip, config)
        told = config.teacher
        if told.size is None and material.chip is not None:
            architecture.num_patches(material.chip)
        self.stage = stage_of(self.backbone, config.stage, "objective.stage")
        self.teacher = Teacher(architecture, material.bands, told.size, told.stage)
        self.project = nn.Linear(self.backbone.widths[self.stage - 1], self.teacher.width)
        self.replicated = [self.teacher] if told.replicate else []
        if told.momentum is not None:
            self.after_step = partial(follow, self.teacher, self, told.momentum)

    def stacks(self) -> list[list[nn.Module]]:
        """Return the blocks of the student and of a teacher that is sharded as it is."""
        taught: list[list[nn.Module]] = self.teacher.backbone.stacks()
        return super().stacks() + (taught if not self.replicated else [])

    def forward(self, images: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Return the losses; the arguments as of `SimMIM.forward`.

        Returns:
            {"loss": mim + alpha feature, "mim": mean absolute error of the hidden pixels,
            "feature": 1 less the mean cosine of the features}, float32
        """
        hidden = self._hidden(images, noise)
        places = list(self._places(images, hidden))
        mim = self._error(places[-1], images, hidden)
        own = self.project(places[self.stage - 1].mean((1, 2)))  # (B, D)
        with phase("teacher"):
            theirs = self.teacher(images)
        feature = 1 - F.cosine_similarity(own.float(), theirs.float()).mean()
        return {"loss": mim + self.config.alpha * feature, "mim": mim, "feature": feature}
