"""Images to patches and back: a patch is p x p pixels of all bands, flattened as (p, p, C)."""

from torch import Tensor


def patchify(images: Tensor, patch: int) -> Tensor:
    """Cut images (B, C, h p, w p) into patches (B, h w, p p C), row by row."""
    B, C, height, width = images.shape
    h, w = height // patch, width // patch
    x = images.reshape(B, C, h, patch, w, patch)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(B, h * w, patch * patch * C)


def unpatchify(patches: Tensor, patch: int, grid: tuple[int, int]) -> Tensor:
    """Put patches (B, h w, p p C) of a (h, w) grid together as images (B, C, h p, w p)."""
    B, _, P = patches.shape
    h, w = grid
    x = patches.reshape(B, h, w, patch, patch, P // patch**2)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(B, P // patch**2, h * patch, w * patch)
