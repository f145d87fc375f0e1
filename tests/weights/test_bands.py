"""Weights for other bands: which kernel each band takes, and what a model then begins with."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hpcgeo.data.sample import Channel
from hpcgeo.models.initialise import draw
from hpcgeo.models.vit import ViT
from hpcgeo.weights.bands import bands_of, differ, shares, told
from hpcgeo.weights.initial import BACKBONE, Start
from hpcgeo.zoo import architecture

RGB = tuple(Channel("rgb", band) for band in "RGB")
LANDSAT = tuple(Channel("landsat7", band) for band in ("B5", "B4", "B3", "B2"))
TINY = architecture("vit_tiny")


def test_a_band_takes_the_kernel_that_is_nearest_in_wavelength() -> None:
    found = shares(LANDSAT, RGB) * 4 / 3
    third = [1 / 3] * 3
    assert torch.allclose(found, torch.tensor([third, third, [1, 0, 0], [0, 1, 0]]))
    assert told(LANDSAT, RGB) == (
        "B5 from the mean of all, B4 from the mean of all, B3 from R, B2 from G"
    )
    assert torch.equal(shares(RGB, RGB), torch.eye(3))
    back = torch.tensor([[0, 0, 1.0], [0, 1, 0], [1, 0, 0]])
    assert torch.equal(shares(RGB[::-1], RGB), back)


def test_bands_differ_where_that_is_known() -> None:
    unknown = tuple(Channel("mine", band) for band in ("a", "b", "c"))
    assert differ(RGB[::-1], RGB) and differ(LANDSAT, RGB)
    assert not differ(RGB, RGB) and not differ(unknown, RGB) and differ(unknown[:2], RGB)


def exported(path: Path) -> dict[str, torch.Tensor]:
    made = {
        BACKBONE + name: draw(BACKBONE + name, value.shape, slice(None), 3)
        for name, value in ViT(TINY, 3).state_dict().items()
    }
    save_file(made, path, {"bands": '["red", "green", "blue"]', "hpcgeo": "0"})
    return made


@pytest.mark.parametrize("rows", [slice(None), slice(3, 70)])
def test_an_embedding_of_other_bands(tmp_path: Path, rows: slice) -> None:
    file = tmp_path / "model.safetensors"
    made = exported(file)
    assert bands_of(tmp_path, TINY.name) == RGB
    with torch.device("meta"):
        shapes = {BACKBONE + n: v.shape for n, v in ViT(TINY, 4).named_parameters()}
    start = Start(file, TINY, shapes, LANDSAT)
    assert not start.unused
    name = f"{BACKBONE}embed.weight"
    ours = start.rows(name, shapes[name], rows)
    # On images whose bands the file knows, a patch becomes what it was, in proportion.
    patches = torch.randn(5, TINY.patch**2, 3)
    seen = patches[..., [0, 1]]
    theirs = made[name][rows].reshape(-1, TINY.patch**2, 3)[..., [0, 1]].flatten(1)
    wide = torch.cat([torch.zeros_like(seen), seen], dim=-1)  # no SWIR, no near infrared
    assert torch.allclose(wide.flatten(1) @ ours.T, 3 / 4 * seen.flatten(1) @ theirs.T, atol=1e-6)
    other = f"{BACKBONE}blocks.0.mlp.into.weight"
    assert torch.equal(start.rows(other, shapes[other], rows), made[other][rows])


def test_public_files_have_the_bands_of_their_rows(tmp_path: Path) -> None:
    assert bands_of(tmp_path / "any.pth", "dinov2_vits14") == RGB
    assert bands_of(tmp_path / "any.pth", "vit_tiny") == ()
