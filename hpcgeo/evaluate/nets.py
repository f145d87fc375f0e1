"""Two small networks to compare with: ResNet-18 for whole images, a U-Net for their pixels.

ResNet-18 is that of He et al. 2016, table 1, for any number of bands.
"""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )


class Residual(nn.Module):
    """Two convolutions beside a shortcut, which is a convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else _convolution(inputs, outputs, 1, stride)
        self.residual = nn.Sequential(
            _convolution(inputs, outputs, 3, stride), nn.ReLU(), _convolution(outputs, outputs, 3)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.shortcut(x) + self.residual(x))


class ResNet18(nn.Module):
    """One answer for each image.

    Args:
        bands: of the images.
        outputs: numbers of an answer.
    """

    def __init__(self, bands: int, outputs: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            _convolution(bands, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)
        )
        widths = [64, 64, 128, 256, 512]
        self.stages = nn.Sequential(
            *(
                nn.Sequential(
                    Residual(before, width, 1 if before == width else 2), Residual(width, width, 1)
                )
                for before, width in pairwise(widths)
            )
        )
        self.head = nn.Linear(512, outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return answers (B, outputs) to images (B, bands, H, W)."""
        return self.head(self.stages(self.stem(images)).mean(dim=(2, 3)))


class UNet(nn.Module):
    """One answer for each pixel; four scales, after Ronneberger et al. 2015.

    Args:
        bands: of the images.
        outputs: numbers of an answer.
        width: channels at full scale; doubled at each of the three coarser ones.
    """

    def __init__(self, bands: int, outputs: int, width: int = 32) -> None:
        super().__init__()
        widths = [width * 2**scale for scale in range(4)]
        self.down = nn.ModuleList(
            _twice(before, after) for before, after in zip([bands, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(
            _twice(coarse + fine, fine)
            for coarse, fine in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(width, outputs, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return answers (B, outputs, H, W) to images (B, bands, H, W)."""
        x, scales = images, []
        for number, step in enumerate(self.down):
            x = step(F.max_pool2d(x, 2, ceil_mode=True) if number else x)
            scales.append(x)
        for step, fine in zip(self.up, scales[-2::-1], strict=True):
            coarse = F.interpolate(x, fine.shape[2:], mode="bilinear", align_corners=False)
            x = step(torch.cat([coarse, fine], dim=1))
        return self.head(x)


def _twice(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        _convolution(inputs, outputs, 3), nn.ReLU(), _convolution(outputs, outputs, 3), nn.ReLU()
    )
