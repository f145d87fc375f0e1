"""Strips are the weighted mean of all tiles over them, whichever others are made beside them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from hpcgeo.data.sample import Sample
from hpcgeo.maps.blending import strips
from hpcgeo.maps.layers import SceneWords
from hpcgeo.maps.reading import SceneReader
from hpcgeo.maps.scenes import NamedScene
from hpcgeo.maps.tiles import Tiling
from tests.data.rasters import AFFINE, UTM, noise, write_tiff
from tests.maps.test_reading import PHOTOS

HEIGHT, WIDTH, TILE = 75, 58, 16


class Model:
    """Answers with the first two bands, and something of the whole tile; counts its tiles."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, samples: Sequence[Sample]) -> torch.Tensor:
        self.batches.append(len(samples))
        values = np.stack([sample.observations[0].values[0, :2] for sample in samples])
        values = np.nan_to_num(values)
        return torch.from_numpy(values + values.mean((2, 3), keepdims=True))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> NamedScene:
    pixels = noise(3, HEIGHT, WIDTH)
    pixels[:, 20:60, 5:50] = 0  # several whole tiles
    path = tmp_path_factory.mktemp("scene") / "a.tif"
    write_tiff(path, pixels, names="RGB", nodata=0, crs=UTM, transform=AFFINE)
    return NamedScene("a", (path,))


def made(scene: NamedScene, tiling: Tiling, wanted: Sequence[int], batch: int = 3) -> Any:
    model, counted = Model(), []
    with SceneReader(scene, PHOTOS, SceneWords(), every_date=False) as reader:
        found = [*strips(reader, tiling, wanted, model, 2, batch, counted.append)]
    return found, model, counted


def tiles_of(overlap: int) -> Tiling:
    return Tiling(HEIGHT, WIDTH, (TILE, TILE), (overlap, overlap))


@pytest.mark.parametrize("overlap", [0, 4, 8])
def test_strips_are_the_weighted_mean_of_all_tiles(scene, overlap):
    tiling = tiles_of(overlap)
    count = len(tiling.strips)
    found, model, counted = made(scene, tiling, range(count))
    mean = np.concatenate([each for _, each, _ in found], axis=1)
    there = np.concatenate([each for _, _, each in found])

    sums, weights = np.zeros((2, HEIGHT, WIDTH)), np.zeros((HEIGHT, WIDTH))
    with SceneReader(scene, PHOTOS, SceneWords(), every_date=False) as reader:
        (whole,) = reader.tiles(0, (0,), (HEIGHT, WIDTH))
        for top in tiling.tops:
            for tile, left in zip(
                reader.tiles(top, tiling.lefts, tiling.tile), tiling.lefts, strict=True
            ):
                if tile.there.any():
                    here = slice(top, top + TILE), slice(left, left + TILE)
                    answer = Model()([tile.sample])[0].numpy()
                    sums[(slice(None), *here)] += answer * tiling.weights()
                    weights[here] += tiling.weights()
    np.testing.assert_array_equal(there, whole.there)
    expected = sums / np.maximum(weights, 1e-9)
    np.testing.assert_allclose(mean[:, there], expected[:, there], atol=1e-5)
    assert sum(counted) == len(tiling.tops) * len(tiling.lefts)
    assert sum(model.batches) < sum(counted)  # what holds nothing is not computed


@pytest.mark.parametrize("overlap", [0, 4, 8])
def test_a_strip_has_the_same_bits_whichever_others_are_made(scene, overlap):
    tiling = tiles_of(overlap)
    count = len(tiling.strips)
    whole = {number: mean for number, mean, _ in made(scene, tiling, range(count))[0]}
    for first in range(count):
        (found, *_), *_ = made(scene, tiling, [first])
        assert found[0] == first
        np.testing.assert_array_equal(found[1], whole[first])


def test_one_tile_over_a_small_scene(scene):
    tiling = Tiling(HEIGHT, WIDTH, (128, 128), (64, 64))
    ((number, mean, there),), model, _ = made(scene, tiling, [0])
    assert (number, mean.shape, there.shape) == (0, (2, HEIGHT, WIDTH), (HEIGHT, WIDTH))
    assert model.batches == [1]
