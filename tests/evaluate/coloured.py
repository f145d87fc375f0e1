"""A folder of small photographs whose class is their colour and pattern, and a small encoder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from hpcgeo.models.initialise import draw
from hpcgeo.models.vit import ViT
from hpcgeo.weights.names import TIMM, convert
from hpcgeo.zoo import architecture

#: The smallest row of public weights.
SMALL = "vit_tiny_patch16_224"
SIDE = 32


def scenes(folder: Path, *, per_class: int = 12, classes: Sequence[str] = ("a", "b", "c")) -> Path:
    """Write photographs with a `split.csv`: two thirds for training, the rest for testing."""
    rng = np.random.default_rng(0)
    lines = ["path,label,split"]
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(per_class):
            pixels = rng.normal(110, 45, (SIDE, SIDE, 3))
            pixels[..., number % 3] += 40
            pixels[:: 2 + number] -= 30
            path = f"{name}/{index}.png"
            image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
            image.save(folder / path)
            lines.append(f"{path},{name},{'test' if index % 3 == 0 else 'train'}")
    (folder / "split.csv").write_text("\n".join(lines) + "\n")
    return folder


def weights(path: Path, *, scale: float = 1.0) -> Path:
    """Write made-up weights of `SMALL` under timm's names."""
    model = architecture(SMALL)
    found = {"pos_embed": torch.randn(1, 197, 192, generator=torch.Generator().manual_seed(0)) / 9}
    for name, value in ViT(model, 3).state_dict().items():
        if name != "position_token":
            whole = draw(f"backbone.{name}", value.shape, slice(None), seed=3) * scale
            theirs = convert(f"backbone.{name}", whole, model, TIMM)
            found |= {target: part.contiguous() for target, part in theirs.items()}
    save_file(found, path)
    return path
