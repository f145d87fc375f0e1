"""A ViT of another size, with its MAE decoder: a row, and no module."""

from hpcgeo.stacks import Stack
from hpcgeo.zoo import Architecture

ROW = Architecture(
    name="vit_mini",
    encoder=Stack(width=96, depth=3, heads=3, hidden=384, mlp="plain"),
    decoder=Stack(width=48, depth=1, heads=3, hidden=192, mlp="plain"),
    patch=8,
    source="made for a test",
)
