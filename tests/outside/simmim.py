"""SimMIM (Xie et al. 2021, arXiv 2111.09886) on a ViT: hidden patches are tokens, one layer
predicts their pixels."""

from typing import Literal

import torch
from torch import nn

from hpcgeo.models.patches import patchify
from hpcgeo.models.positions import sincos_2d
from hpcgeo.models.vit import ViT
from hpcgeo.objectives.masking import noise
from hpcgeo.objectives.objective import IMAGES, Objective, ObjectiveOptions


class Options(ObjectiveOptions):
    name: Literal["my_simmim"] = "my_simmim"
    mask_ratio: float = 0.6


class Network(nn.Module):
    def __init__(self, architecture, bands, mask_ratio):
        super().__init__()
        width, values = architecture.encoder.width, architecture.patch**2 * bands
        self.patch, self.mask_ratio = architecture.patch, mask_ratio
        self.backbone = ViT(architecture, bands)
        self.mask_token = nn.Parameter(torch.empty(values))
        self.predict = nn.Linear(width, values)

    def stacks(self):
        return self.backbone.stacks()

    def forward(self, images, noise):
        patches = patchify(images, self.patch)  # (B, N, P)
        hidden = noise < noise.quantile(self.mask_ratio, dim=1, keepdim=True)  # (B, N)
        seen = torch.where(hidden[..., None], self.mask_token.to(patches.dtype), patches)
        grid = tuple(size // self.patch for size in images.shape[2:])
        x = self.backbone(seen, sincos_2d(self.backbone.width, grid, images.device))
        error = (self.predict(x[:, 1:]).float() - patches).abs().mean(2)
        return {"loss": (error * hidden).sum() / hidden.sum()}


class SimMim(Objective):
    title = "predict hidden patches by one layer (arXiv 2111.09886)"
    Options, backbones, data, exports = Options, ("vit",), (IMAGES,), ("timm",)

    def network(self, material):
        return Network(material.architecture, material.bands, self.options.mask_ratio)

    def image_inputs(self, views, position, num_patches):
        mask = noise(self.seed, position, num_patches).to(views[0].device)
        return {"images": views[0], "noise": mask}
