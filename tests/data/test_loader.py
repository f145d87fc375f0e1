"""The loader: the order of samples is the same for any number of ranks and workers."""

from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hpcgeo.data import loader
from hpcgeo.data.loader import ImageBatch, ImageBatches, Loader
from hpcgeo.data.sampling.order import shuffled
from hpcgeo.data.shards.build import build
from hpcgeo.data.shards.dataset import ShardDataset, open_dataset
from hpcgeo.data.shards.executors import run
from hpcgeo.data.shards.settings import Settings
from hpcgeo.data.shards.synthetic import SyntheticDataset, scene
from hpcgeo.data.views import ViewBatch
from hpcgeo.errors import InputError
from hpcgeo.options import Data
from tests.data.rasters import noise, write_tiff


@pytest.fixture
def dataset(photos, tmp_path):
    run(lambda over: build(photos(13), tmp_path / "set", Settings(32), over).num_failed, 1)
    return ShardDataset(tmp_path / "set")


def same(batch):
    return batch


def batches(dataset, count, **options):
    what = {"seed": 0, "micro_batch": 2, "rank": 0, "world": 1}
    what |= {name: options.pop(name) for name in what if name in options}
    how = {"accumulate": 1, "workers": 0} | options
    return list(islice(Loader(ImageBatches(dataset, **what, prepare=same), **how), count))


def steps(dataset, num_steps, world, accumulate, micro_batch, first_step=0):
    """Return positions and indices per step, of all ranks together."""
    ranks = [
        batches(
            dataset,
            num_steps * accumulate,
            rank=rank,
            world=world,
            accumulate=accumulate,
            micro_batch=micro_batch,
            first_step=first_step,
        )
        for rank in range(world)
    ]
    found = []
    for step in range(num_steps):
        portions = [
            ranks[rank][step * accumulate + a] for a in range(accumulate) for rank in range(world)
        ]
        found.append(
            tuple(
                np.concatenate([getattr(batch, name) for batch in portions]).tolist()
                for name in ("position", "index")
            )
        )
    return found


def test_a_step_is_the_same_samples_for_any_split(dataset):
    expected = steps(dataset, 5, world=1, accumulate=1, micro_batch=12)
    assert [position for position, _ in expected] == [
        list(range(12 * step, 12 * step + 12)) for step in range(5)
    ]
    for world, accumulate, micro_batch in ((2, 3, 2), (4, 1, 3), (3, 4, 1), (1, 2, 6)):
        assert steps(dataset, 5, world, accumulate, micro_batch) == expected
    assert steps(dataset, 2, 2, 3, 2, first_step=3) == expected[3:]


def test_small_shared_memory_is_gone_around(dataset, caplog):
    """A container has 64 MB of it; where it is full, readers die without a word."""
    reader = Loader(ImageBatches(dataset, 0, 2, 0, 1, same), accumulate=1, workers=2)
    reader._loader.collate_fn._has_room = False
    for one, other in zip(batches(dataset, 5), islice(reader, 5), strict=True):
        assert torch.equal(one.pixels, other.pixels)
        assert np.array_equal(one.index, other.index)
    assert [record.args[0] for record in caplog.records] == [loader.SHARED_MEMORY], "said once"


def test_room_in_shared_memory_is_looked_for(monkeypatch):
    monkeypatch.setattr(loader, "get_worker_info", lambda: SimpleNamespace(num_workers=2))
    none = np.zeros(1, dtype=np.int64)
    batch = ImageBatch(torch.zeros(1000, dtype=torch.uint8), none, none, none, none)
    monkeypatch.setattr(loader, "SHARED_MEMORY", "/nowhere")
    sent = loader._Sent()(batch)
    assert isinstance(sent.batch.pixels.values, np.ndarray) and sent.nbytes == 1000
    assert torch.equal(sent.restored().pixels, batch.pixels)
    two = torch.rand(2, 1, 1, 4), torch.rand(2, 1, 1, 8)  # views of two sizes, one batch
    views = ViewBatch(two, torch.zeros(2, 2, 7), torch.zeros(2), none, is_cut=True)
    sent = loader._Sent()(views)
    assert sent.nbytes == 4 * (8 + 16 + 28 + 2)
    assert all(map(torch.equal, sent.restored().pixels, two))
    assert sent.restored().is_cut
    monkeypatch.setattr(loader, "SHARED_MEMORY", "/")
    assert loader._Sent()(batch) is batch
    monkeypatch.setattr(loader, "get_worker_info", lambda: None)
    assert loader._Sent()(batch) is batch, "no reader, nothing to send"


def test_batches_are_the_samples_their_index_names(dataset):
    whole, _ = dataset.read(np.arange(len(dataset)))
    for batch in batches(dataset, 10):
        assert np.array_equal(batch.index, shuffled(batch.position, 13, 0))
        assert batch.pixels.dtype == torch.uint8
        assert np.array_equal(batch.pixels.numpy(), whole[batch.index])
        assert batch.valid.tolist() == [[32, 32]] * 2


def test_every_epoch_holds_every_sample(dataset):
    index = np.concatenate([batch.index for batch in batches(dataset, 39, micro_batch=1)])
    for epoch in index.reshape(3, 13):
        assert sorted(epoch) == list(range(13))
    assert not np.array_equal(index[:13], index[13:26])


def test_workers_change_nothing_and_open_files_themselves(dataset):
    dataset.read(np.array([0]))  # a file is open here; workers get none of it
    alone = batches(dataset, 5)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for one, other in zip(alone, batches(dataset, 5, workers=2), strict=True):
        assert torch.equal(one.pixels, other.pixels)
        for name in ("valid", "position", "index"):
            assert np.array_equal(getattr(one, name), getattr(other, name))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint32", "float32"])
def test_other_data_types_arrive_as_they_are(tmp_path, dtype):
    pixels = noise(2, 16, 16, dtype=dtype, high=60_000 if dtype != "int16" else 30_000)
    write_tiff(tmp_path / "in" / "a.tif", pixels, ["x", "y"])
    run(lambda over: build(tmp_path / "in", tmp_path / "set", Settings(16), over).num_failed, 1)
    (batch,) = batches(open_dataset(Data(path=str(tmp_path / "set"))), 1, micro_batch=1)
    assert str(batch.pixels.dtype) == f"torch.{dtype}"
    assert np.array_equal(batch.pixels[0].numpy(), pixels)


def test_open_dataset(tmp_path):
    made = open_dataset(Data(chip=(48, 64)))
    assert (made.kind, made.shape, made.bands) == (
        "synthetic",
        (3, 48, 64),
        ("red", "green", "blue"),
    )
    with pytest.raises(InputError, match="hpcgeo data build"):
        open_dataset(Data(path=str(tmp_path)))


def test_synthetic_samples_are_made_from_their_index(tmp_path):
    dataset = SyntheticDataset((5, 40, 24), num_samples=100)
    pixels, valid = dataset.read(np.array([3, 99, 3]))
    assert pixels.shape == (3, 5, 40, 24) and valid.tolist() == [[40, 24]] * 3
    assert np.array_equal(pixels[0], pixels[2]) and not np.array_equal(pixels[0], pixels[1])
    again = SyntheticDataset((5, 40, 24), num_samples=100)
    assert np.array_equal(again.read(np.array([3]))[0][0], pixels[0])
    assert again.fingerprint == dataset.fingerprint != SyntheticDataset((5, 40, 24)).fingerprint
    assert (dataset.std > 10).all() and len(dataset.bands) == 5


def test_scenes_differ_and_have_structure():
    one, two = scene(256, 0).astype(float), scene(256, 1).astype(float)
    assert np.array_equal(one, scene(256, 0)) and not np.array_equal(one, two)
    neighbours = np.corrcoef(one[0, :, :-1].ravel(), one[0, :, 1:].ravel())[0, 1]
    assert 0.5 < neighbours < 0.99
