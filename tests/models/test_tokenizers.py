"""Stems and encodings: shared where a band is shared, and nothing mixed."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from hpcgeo.data.labelled_batches import plain
from hpcgeo.data.sample import Channel, Observation, Sample
from hpcgeo.models.tokenizers import Tokenizer
from hpcgeo.objectives.collate import tokens, whole
from hpcgeo.workloads.mixture import band_of
from tests.mixed import KNOWN, PADDING, initialised, multitask

BANDS = tuple(Channel("sentinel2", band) for band in ("B02", "B03", "B04"))
WIDTH = 32

MINE = """
kite: {title: Kite, source: me, bands: {edge: [717, 10, 0.1], far: [1600, 90, 0.1]}}
sentinel2: {title: More, source: me, bands: {B8.5: [850, 20, 10]}}
"""


def tokenizer(channels=BANDS):
    return initialised(Tokenizer(channels, WIDTH))


def image(channels=BANDS, dates=2, size=16, patch=4, seed=0):
    values = np.random.default_rng(seed).normal(size=(dates, len(channels), size, size))
    time = np.array([[7000.0 + 30 * date, 0.5] for date in range(dates)])
    return Observation(channels, values.astype(np.float32), time, 10.0, patch)


def group(seen, bands=KNOWN, named=True):
    one = replace(plain(Sample((seen,), np.array(0), (8.0, 47.0))), named=(named,))
    return tokens([one], PADDING, bands, whole([one]))[0].groups[0]


@pytest.mark.parametrize("patch", [1, 2, 4, 8, 16])
def test_neither_bands_nor_dates_nor_samples_mix(patch):
    made, seen = tokenizer(), image(patch=patch)
    before = made.features(group(seen))[0]
    side = 16 // patch
    assert before.shape == (2, 3, side, side, WIDTH)
    for date in range(2):
        for band in range(3):
            values = seen.values.copy()
            values[date, band] += 1
            changed = made.features(group(replace(seen, values=values)))[0] != before
            where = changed.flatten(2).any(2)
            assert where.nonzero().tolist() == [[date, band]]


def test_bands_have_stems_of_their_own_and_data_sets_share_them():
    made, seen = tokenizer(), image()
    same = replace(seen, values=np.repeat(seen.values[:, :1], 3, axis=1))
    read = made.features(group(same))[0]
    assert not torch.allclose(read[:, 0], read[:, 1], atol=1e-4)
    backwards = replace(seen, channels=BANDS[::-1], values=seen.values[:, ::-1].copy())
    assert torch.allclose(
        made.features(group(backwards)).flip(2), made.features(group(seen)), atol=1e-6
    )
    # scenes and tiles: both of them red, green, blue
    assert [name for name in multitask().backbone.tokenizer.images if "rgb" in name] == [
        "rgb/B",
        "rgb/G",
        "rgb/R",
    ]


def test_an_unknown_band_is_read_by_the_stem_of_unknown_ones(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(MINE)
    bands = partial(band_of, path)
    made = tokenizer()
    kite = image((Channel("kite", "edge"), Channel("kite", "far")))
    unknown = group(kite, bands)
    stems = made.features(unknown)
    assert stems.isfinite().all()
    same = replace(kite, values=np.repeat(kite.values[:, :1], 2, axis=1))
    assert torch.equal(*made.features(group(same, bands)).unbind(2))
    encoding = made.encoding(unknown)
    assert not torch.allclose(encoding[:, :, 0], encoding[:, :, 1], atol=1e-3)
    known = replace(kite, channels=BANDS[:2])
    assert torch.equal(made.features(group(known, named=False)), stems)
    assert not torch.allclose(made.features(group(known)), stems, atol=1e-3)


def test_a_band_may_have_a_dot_in_its_name(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(MINE)
    channels = (*BANDS, Channel("sentinel2", "B8.5"))
    made = tokenizer(channels)
    assert len(made.images) == 5
    seen = group(image(channels), partial(band_of, path))
    assert not torch.equal(made.features(seen), made.features(replace(seen, named=False)))


def test_vectors_have_stems_by_their_length():
    table = tuple(Channel("landsat8", band, 16) for band in ("B2", "B3"))
    made = tokenizer((*BANDS, *table))
    values = np.random.default_rng(0).normal(size=(3, 2, 16)).astype(np.float32)
    seen = Observation(table, values, np.zeros((3, 2)))
    read = made.features(group(seen))
    assert read.shape == (1, 3, 2, 1, 1, WIDTH)
    changed = values.copy()
    changed[1, 1, 5] += 1
    other = made.features(group(replace(seen, values=changed)))
    assert (read != other).any(-1)[0, :, :, 0, 0].nonzero().tolist() == [[1, 1]]


def test_what_is_not_there_reaches_no_token():
    made, seen = tokenizer(), image()
    values = seen.values.copy()
    values[0, 0, :4, :4] = np.nan
    clouded = group(replace(seen, values=values))
    there = clouded.there()
    assert there.shape == (1, 2, 3, 4, 4)
    assert (~there).nonzero().tolist() == [[0, 0, 0, 0, 0]]
    noisy = clouded.values.clone()
    noisy[0, 0, 0, :4, :4] = 7
    assert torch.equal(made.features(clouded), made.features(replace(clouded, values=noisy)))


def test_encodings_say_where_when_and_how_fine():
    made, seen = tokenizer(), image()
    before = made.encoding(group(seen))
    later = replace(seen, time=seen.time + np.array([100.0, 0.0]))
    assert not torch.allclose(made.encoding(group(later)), before, atol=1e-3)
    finer = replace(seen, gsd_m=5.0)
    assert not torch.allclose(made.encoding(group(finer)), before, atol=1e-3)
    unknown = replace(seen, gsd_m=float("nan"), time=np.array([[0, np.inf]] * 2))
    assert made.encoding(group(unknown)).isfinite().all()
    cells = before[0, 0, 0].flatten(0, 1)
    assert torch.unique(cells.detach().round(decimals=3), dim=0).shape[0] == 16
