"""Preprocessing is part of exported weights: other libraries compute the features of the run."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor, ViTMAEModel
from transformers import logging as transformers_logging

from hpcgeo.config import load
from hpcgeo.data.labelled import fingerprint_of
from hpcgeo.data.loader import ImageBatch
from hpcgeo.data.shards import executors
from hpcgeo.data.shards.build import build
from hpcgeo.data.shards.dataset import ShardDataset, open_dataset
from hpcgeo.data.shards.settings import Settings
from hpcgeo.data.views import RandomView, Views
from hpcgeo.errors import InputError
from hpcgeo.models.patches import patchify
from hpcgeo.models.positions import sincos_2d
from hpcgeo.options import Augment
from hpcgeo.weights.export import export
from hpcgeo.weights.preprocessing import preprocessing
from tests.data.rasters import AFFINE, UTM, noise, write_tiff
from tests.weights.made_up import trained, untrained

transformers_logging.disable_progress_bar()
SIDE, PATCH = 64, 8


def build_set(folder: Path, bands: int = 3, dtype: str = "uint8", **profile: float) -> None:
    """A data set of GeoTIFFs of one's own."""
    for number in range(2):
        pixels = noise(bands, SIDE, SIDE, dtype=dtype, high=250, seed=number)
        pixels = pixels * np.array([[[number + 1]]], dtype)  # moments that are no one's default
        path, names = folder / f"scenes/{number}.tif", [f"B0{band}" for band in range(bands)]
        names = None if bands == 3 else names
        write_tiff(path, pixels, names, crs=UTM, transform=AFFINE, **profile)
    source, out, settings = folder / "scenes", folder / "set", Settings(SIDE)
    executors.run(lambda over: len(build(source, out, settings, over).index.layouts), 1)


def run_on(folder: Path, chip: int, bands: int = 3, dtype: str = "uint8", **profile: float) -> Path:
    """A run of made up weights on such a set."""
    build_set(folder, bands, dtype, **profile)
    options = [f"data.path={folder / 'set'}", f"data.chip={chip}"]
    return untrained(folder / "run", *options, scale=0.1)


def prepared(run: Path) -> tuple[np.ndarray, Tensor, tuple[int, int]]:
    """Samples (B, C, H, W) of a run, its views (B, C, h, w) of them, and the grid of patches."""
    config = load(str(run / "config.yaml"))
    dataset, chip = open_dataset(config.data), config.data.chip
    batch = ImageBatch.read(dataset, np.arange(len(dataset)), np.arange(len(dataset)))
    images = Views(dataset, [RandomView(chip, Augment())], 0).plain(batch, torch.device("cpu"))
    return batch.pixels.numpy(), images, (chip[0] // PATCH, chip[1] // PATCH)


def features(run: Path) -> tuple[np.ndarray, Tensor]:
    """Samples (B, C, H, W) of a run and the features (B, 1 + N, W) that it sees in them."""
    pixels, images, grid = prepared(run)
    positions = sincos_2d(128, grid, torch.device("cpu"))
    with torch.no_grad():
        return pixels, trained(run).backbone(patchify(images, PATCH), positions)


def in_pillow(pixels: np.ndarray) -> list[Image.Image]:
    return [Image.fromarray(image.transpose(1, 2, 0)) for image in pixels]


def in_transformers(out: Path, images: list[np.ndarray] | list[Image.Image]) -> Tensor:
    """The features that transformers computes, from nothing but what was exported."""
    values = AutoImageProcessor.from_pretrained(out)(images, return_tensors="pt")["pixel_values"]
    model = ViTMAEModel.from_pretrained(out, mask_ratio=0.0)
    order = torch.linspace(0, 1, (values.shape[-1] // PATCH) ** 2).expand(len(values), -1)
    with torch.no_grad():
        return model(values.float(), noise=order).last_hidden_state


def test_transformers_sees_what_the_run_saw(tmp_path: Path) -> None:
    run = run_on(tmp_path, SIDE)
    said = export(run, "transformers", tmp_path / "out")
    assert "not in the files" not in said and "AutoImageProcessor" in said
    pixels, seen = features(run)
    found = in_transformers(tmp_path / "out", in_pillow(pixels))
    torch.testing.assert_close(found, seen, atol=1e-5, rtol=0)


def test_what_pillow_resizes_is_no_more_than_a_level_off(tmp_path: Path) -> None:
    """torch and Pillow round a few in a hundred pixels of noise to adjacent levels."""
    run = run_on(tmp_path, 40)
    export(run, "transformers", tmp_path / "out")
    pixels, views, _ = prepared(run)
    processor = AutoImageProcessor.from_pretrained(tmp_path / "out")
    found = torch.from_numpy(np.stack(processor(in_pillow(pixels))["pixel_values"]))
    std = torch.tensor(open_dataset(load(str(run / "config.yaml")).data).std[0])
    levels = (found - views).abs() * std[:, None, None]
    assert levels.max() < 1.001 and (levels > 1e-3).double().mean() < 0.05


def test_bands_and_depths_that_pillow_does_not_know(tmp_path: Path) -> None:
    """Nothing is resized or made 8 bits in silence: arrays are normalised, and that is said."""
    run = run_on(tmp_path, SIDE, bands=5, dtype="uint16", nodata=0)
    said = export(run, "transformers", tmp_path / "out")
    assert "this run reads 5 of uint16: give arrays (bands, 64, 64)" in said
    assert "set those of 0 to the mean of their band" in said
    pixels, seen = features(run)
    found = in_transformers(tmp_path / "out", [*pixels])
    torch.testing.assert_close(found, seen, atol=1e-5, rtol=0)


def test_timm_resolves_the_moments_of_the_run(tmp_path: Path) -> None:
    run = run_on(tmp_path, 40)
    dataset = open_dataset(load(str(run / "config.yaml")).data)
    export(run, "timm", tmp_path / "out")
    found = json.loads((tmp_path / "out/config.json").read_text())["pretrained_cfg"]
    np.testing.assert_allclose(np.multiply(found["mean"], 255), dataset.mean[0])
    np.testing.assert_allclose(np.multiply(found["std"], 255), dataset.std[0])
    assert found["crop_pct"] == 1 and found["interpolation"] == "bilinear"
    assert found["input_size"] == [3, 40, 40] and found["crop_mode"] == "center"


def test_timm_sees_what_the_run_saw(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="needs timm and torchvision", exc_type=ImportError)
    run = run_on(tmp_path, SIDE)
    export(run, "timm", tmp_path / "out")
    model = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    pixels, seen = features(run)
    images = torch.stack([transform(image) for image in in_pillow(pixels)])
    with torch.no_grad():
        found = model.forward_features(images)
    torch.testing.assert_close(found, seen, atol=1e-5, rtol=0)


def test_a_fine_tuned_run_of_one_set_knows_its_preprocessing(tmp_path: Path) -> None:
    """The moments of several sets are none of the run: that is said, and no others are given."""
    build_set(tmp_path)
    one = f"{{reader: shards, path: {tmp_path / 'set'}, size: {SIDE}}}"
    dataset = ShardDataset(tmp_path / "set")
    for sets in (["cover"], ["cover", "use"]):
        tasks = ", ".join(f"{name}: {one}" for name in sets)
        more = ["objective.name=multitask", f"data={{tasks: {{{tasks}}}}}", "run.dir=x"]
        run = load("mae_vit_tiny", more)
        known = json.dumps({"data": fingerprint_of(dict.fromkeys(sets, dataset.fingerprint))})
        (tmp_path / "step.json").write_text(known)
        if len(sets) == 1:
            found = preprocessing(run, (SIDE, SIDE), tmp_path)
            assert found.mean == tuple(dataset.mean[0]) and found.bands == dataset.bands
            (tmp_path / "step.json").write_text('{"data": "another"}')
        with pytest.raises(InputError, match=r"was built anew|each of its data sets has its own"):
            preprocessing(run, (SIDE, SIDE), tmp_path)
