"""A backbone of no depth: the mean of every band, and one layer."""

from dataclasses import dataclass

import torch
from torch import nn

from hpcgeo.models.features import Features


@dataclass(frozen=True)
class Architecture:
    name: str = "mean_pool"
    family: str = "mean_pool"
    any_sensor: bool = False
    source: str = "made for a test"
    width: int = 32

    def num_patches(self, chip):
        return 1

    def refuse_cut(self, tensor):
        assert tensor == 1


class MeanPool(nn.Module):
    def __init__(self, architecture, signals, bands, density):
        super().__init__()
        self.width, self.heads, self.context = architecture.width, 4, architecture.width
        self.embed = nn.Linear(bands, architecture.width)
        self.bands = bands

    def stacks(self):
        return []

    def encode(self, tokens):
        vectors = tokens.place.new_zeros(len(tokens.place), self.bands, dtype=torch.float32)
        for group in tokens.groups:  # (G, T, C, H, W)
            means = group.values.nan_to_num(0.0).float().mean((1, 3, 4))
            vectors = vectors.index_add(0, group.samples, means)
        x = self.embed(vectors.to(self.embed.weight.dtype))
        return Features(x[:, None], x, [], [])


ROW = Architecture()
