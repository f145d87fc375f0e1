"""Encoders: a run, its export and public weights say the same; data of another unit is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hpcgeo.data.labelled import LabelledSplit, open_tasks
from hpcgeo.data.sample import Channel
from hpcgeo.errors import InputError
from hpcgeo.evaluate.encoders import open_encoder
from hpcgeo.evaluate.image_encoder import ImageEncoder
from hpcgeo.models.patches import patchify
from hpcgeo.weights.export import export
from tests.evaluate.coloured import SIDE, SMALL, scenes, weights
from tests.weights.made_up import trained, untrained


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> ImageEncoder:
    return open_encoder(f"{SMALL}:{weights(tmp_path_factory.mktemp('w') / 'w.safetensors')}")


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> LabelledSplit:
    folder = scenes(tmp_path_factory.mktemp("data") / "scenes")
    return open_tasks("scenes", folder, split="train", size=SIDE)


def renamed(part: LabelledSplit, channels: tuple[Channel, ...]) -> LabelledSplit:
    """Return a split whose bands are called otherwise."""
    moments = dict(zip(channels, part.moments.values(), strict=True))
    return replace(part, collection=replace(part.collection, channels=channels), moments=moments)


def test_a_run_and_its_export_are_one_encoder(tmp_path: Path) -> None:
    run = untrained(tmp_path / "run", f"data.chip={SIDE}", scale=0.1)
    export(run, "safetensors", tmp_path / "out")
    of_run, of_export = open_encoder(str(run)), open_encoder(str(tmp_path / "out"))
    assert of_run.fingerprint == of_export.fingerprint
    assert (of_run.mean, of_run.std, of_run.channels) == (
        of_export.mean,
        of_export.std,
        of_export.channels,
    )
    images = torch.randn(2, 3, SIDE, SIDE)
    [found] = of_run.tokens(images, [of_run.depth])
    backbone = trained(run, 7).backbone
    grid = (SIDE // 8, SIDE // 8)
    with torch.no_grad():
        expected = backbone(patchify(images, 8), backbone.positions(grid, images.device))
    torch.testing.assert_close(found, expected)
    larger = torch.randn(1, 3, 2 * SIDE, SIDE)  # of another size and aspect
    assert of_run.grids(larger, [1])[0].shape == (1, 2 * SIDE // 8, SIDE // 8, 128)


def test_a_swin_is_read_by_stages(tmp_path: Path, part: LabelledSplit) -> None:
    """A run and its export alike; a stage is what the next one reads, its vector the mean."""
    words = "data.chip=64", "model.name=swin_nano", "objective={name: simmim}"
    run = untrained(tmp_path / "run", *words, scale=0.1)
    export(run, "safetensors", tmp_path / "out")
    of_run, of_export = open_encoder(str(run)), open_encoder(str(tmp_path / "out"))
    assert of_run.fingerprint == of_export.fingerprint
    assert (of_run.depth, of_run.blocks, of_run.native) == (4, (1, 2, 3, 4), (2, 2))
    images = torch.randn(2, 3, 64, 96)
    images[0, :, :5] = torch.nan  # missing: the mean
    grids = of_run.grids(images, [2, 4])
    assert [each.shape for each in grids] == [(2, 4, 6, 96), (2, 2, 3, 192)]
    assert [of_run.cell(block) for block in (1, 2, 4)] == [(8, 48), (16, 96), (32, 192)]
    [vector] = of_run.vectors(images, [4])
    torch.testing.assert_close(vector, of_run.backbone(images.nan_to_num(0.0)).mean((1, 2)))
    torch.testing.assert_close(vector, grids[1].flatten(1, 2).mean(1))
    for block in (0, 5):
        with pytest.raises(InputError, match=f"block {block}: run has 4 stages, from 1"):
            of_run.refuse_block(block)


def test_blocks_of_the_second_half_are_tried(public: ImageEncoder) -> None:
    assert public.blocks == (7, 8, 9, 10, 11, 12)
    assert public.random(0).fingerprint != public.random(1).fingerprint
    assert public.random(0).fingerprint == public.random(0).fingerprint


def test_pixels_are_normalised_in_the_units_of_the_encoder(
    public: ImageEncoder, part: LabelledSplit
) -> None:
    prepared = public.reads(part)
    seen = prepared.split(part).read(0)
    found = prepared.images([seen])
    stored = part.collection.load(int(part.indices[0])).observations[0].values
    np.testing.assert_allclose(found[0].numpy(), (stored - 127.5) / 127.5, atol=1e-6)
    assert prepared.transform["mean"] == [127.5] * 3
    own = public.reads(part, normalise="data")
    np.testing.assert_allclose(
        own.images([own.split(part).read(0)])[0], part.read(0).observations[0].values
    )


def test_bands_are_matched_by_name_else_by_wavelength(
    public: ImageEncoder, part: LabelledSplit
) -> None:
    blue_first = tuple(Channel("sentinel2", band) for band in ("B02", "B03", "B04"))
    other = renamed(part, blue_first)
    assert public.reads(other, normalise="data").channels == blue_first[::-1]
    with pytest.raises(
        InputError, match=r"numbers of 0 to 255, and those of sentinel2 B04 are reflectance x 10000"
    ):
        public.reads(other)
    naip = tuple(Channel("naip", band) for band in ("R", "G", "B"))
    assert public.reads(renamed(part, naip)).channels == naip  # another sensor of the same unit
    infrared = tuple(Channel("sentinel2", band) for band in ("B8A", "B11", "B12"))
    with pytest.raises(InputError, match=r"reads rgb R, rgb G, rgb B; the data has no rgb R and"):
        public.reads(renamed(part, infrared), normalise="data")


def test_a_band_of_the_data_is_read_once(public: ImageEncoder, part: LabelledSplit) -> None:
    """Else it would be normalised by the moments of another."""
    two = tuple(Channel("sentinel2", band) for band in ("B04", "B03", "B03"))
    channels = dict.fromkeys(two, (1.0, 1.0))
    wanted = tuple(Channel("sentinel2", band) for band in ("B07", "B08", "B8A"))
    encoder = replace(public, channels=wanted)
    there = (*channels, Channel("sentinel2", "B08"))
    other = replace(part, collection=replace(part.collection, channels=there))
    with pytest.raises(InputError, match="sentinel2 B08 is the nearest to several of them"):
        encoder.reads(other)


def test_infinite_pixels_are_missing(public: ImageEncoder, part: LabelledSplit) -> None:
    images = torch.randn(1, 3, SIDE, SIDE)
    images[0, 0, 3, 5] = torch.nan
    infinite = images.nan_to_num(-torch.inf)
    ours, theirs = (public.tokens(each, [12])[0] for each in (images, infinite))
    assert torch.equal(ours, theirs) and ours.isfinite().all()
    values = np.full((1, 3, 8, 8), 100.0, np.float32)
    values[0, 1, 2, 2] = -np.inf  # the logarithm of nothing
    seen = replace(part.collection.load(0).observations[0], values=values)
    found = part._standardised(seen).values
    assert np.isnan(found[0, 1, 2, 2]) and np.isfinite(found).sum() == found.size - 1


def test_numbers_far_from_those_it_knows_are_refused(
    public: ImageEncoder, part: LabelledSplit
) -> None:
    moments = dict.fromkeys(part.moments, (0.4, 0.2))  # of 0 to 1
    with pytest.raises(InputError, match=r"rgb R of the data has mean 0.4 .* of another unit"):
        public.reads(replace(part, moments=moments))
    moments = dict.fromkeys(part.moments, (1200.0, 300.0))
    with pytest.raises(InputError, match="--normalise data"):
        public.reads(replace(part, moments=moments))
    assert public.reads(replace(part, moments=moments), normalise="data")


def test_what_is_no_encoder_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no encoder 'nowhere': give the folder of a run"):
        open_encoder("nowhere")
    with pytest.raises(InputError, match=r"unknown public weights 'dinov2_vits13'.*dinov2_vits14"):
        open_encoder(f"dinov2_vits13:{tmp_path}/x")
    with pytest.raises(InputError, match=r"'dinov2_vits14:': give the file of its weights"):
        open_encoder("dinov2_vits14:")
    path = weights(tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="does not say its config, bands, mean, std"):
        open_encoder(str(path))
    with pytest.raises(InputError, match="has shape"):
        open_encoder(f"mae_vit_base:{path}")
    with pytest.raises(InputError, match="No such file"):
        open_encoder(f"mae_vit_base:{tmp_path}/absent.pth")
