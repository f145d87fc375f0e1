"""MoCo v3 (Chen et al. 2021, arXiv 2104.02057): two views, a teacher that is a moving average, and
samples of all ranks to tell apart."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from hpcgeo.models.patches import patchify
from hpcgeo.models.positions import sincos_2d
from hpcgeo.models.vit import ViT
from hpcgeo.objectives.objective import IMAGES, Objective, ObjectiveOptions


class Options(ObjectiveOptions):
    name: Literal["my_contrastive"] = "my_contrastive"
    momentum: float = 0.9
    temperature: float = 0.2


class Encoder(nn.Module):
    def __init__(self, architecture, bands):
        super().__init__()
        self.backbone = ViT(architecture, bands)
        self.project = nn.Linear(architecture.encoder.width, 64)

    def encode(self, images):
        grid = tuple(size // self.backbone.patch for size in images.shape[2:])
        positions = sincos_2d(self.backbone.width, grid, images.device)
        x = self.backbone(patchify(images, self.backbone.patch), positions)
        return F.normalize(self.project(x[:, 1:].mean(1)).float(), dim=1)


class Network(Encoder):
    def __init__(self, architecture, bands, options):
        super().__init__(architecture, bands)
        self.options = options
        self.predict = nn.Linear(64, 64)
        self.teacher = Encoder(architecture, bands).requires_grad_(False)
        self.gather = lambda x: x

    def stacks(self):
        return [*self.backbone.stacks(), *self.teacher.backbone.stacks()]

    def forward(self, views):
        queries = [F.normalize(self.predict(self.encode(view)).float(), dim=1) for view in views]
        with torch.no_grad():
            keys = [self.teacher.encode(view) for view in views]
        queries, keys = ([self.gather(one) for one in each] for each in (queries, keys))
        number = torch.arange(len(keys[0]), device=keys[0].device)  # (W B,)
        losses = [
            F.cross_entropy(query @ key.T / self.options.temperature, number)
            for query, key in zip(queries, reversed(keys), strict=True)
        ]
        return {"loss": sum(losses)}

    def after_step(self):
        student = dict(self.named_parameters())
        for name, teacher in self.teacher.named_parameters():
            teacher.lerp_(student[name], 1 - self.options.momentum)


class MyContrastive(Objective):
    title = "tell samples apart by two views (arXiv 2104.02057)"
    Options, backbones, data = Options, ("vit",), (IMAGES,)

    def network(self, material):
        return Network(material.architecture, material.bands, self.options)

    def random_views(self, chip, augment):
        return [(chip, augment)] * 2

    def drawn_as(self, name):
        return name.removeprefix("teacher.")
