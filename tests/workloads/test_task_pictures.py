"""Pictures of tasks: the same samples whatever rank scored them, drawn by one."""

import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from PIL import Image

from hpcgeo.data.labelled import open_tasks
from hpcgeo.data.labelled_batches import plain
from hpcgeo.data.readers.generated import KINDS
from hpcgeo.pictures.pages import GAP, HEADER, colour, coloured
from hpcgeo.workloads.task_pictures import Album
from tests.distributed import on_ranks

SIDE = 160 + GAP


def draw(folder: str) -> None:
    """Predict the truth of every kind and draw it; each rank has its share of the samples."""
    rank, world = dist.get_rank(), dist.get_world_size()
    album = Album(Path(folder), 7, SimpleNamespace(rank=rank))
    for kind in KINDS:
        whole = open_tasks("generated", Path(kind), split="test", patch=4)
        part = replace(whole, indices=whole.indices[:20])
        drawn = [plain(part.read(index), kind, index) for index in range(rank, len(part), world)]
        truth = torch.from_numpy(np.stack([one.sample.target for one in drawn]))
        if not truth.is_floating_point():  # as logits (b, K, ...)
            truth = F.one_hot(truth, len(part.target.names)).movedim(-1, 1).float()
        album.add(part, drawn, truth)
        album.draw(kind, part.target)


def test_every_task_has_its_picture():
    pytest.importorskip("matplotlib")
    found = []
    for ranks in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            on_ranks(draw, ranks, folder)
            pages = {}
            for path in (Path(folder) / "pictures").iterdir():
                with Image.open(path) as picture:
                    pages[path.name] = np.asarray(picture.convert("RGB"))
        found.append(pages)
    alone, shared = found
    assert set(alone) == set(shared) == {f"{kind}-step-00000007.png" for kind in KINDS}
    assert all(np.array_equal(page, shared[name]) for name, page in alone.items())
    for kind, columns in (("tiles", 3), ("pairs", 4)):
        page = alone[f"{kind}-step-00000007.png"]
        assert page.shape == (6 * SIDE + 2 * HEADER, columns * SIDE, 3)  # a title and a legend
        body = page[HEADER:-HEADER]
        truth, predicted = (body[:, (columns - n) * SIDE :][:, :SIDE] for n in (2, 1))
        assert np.array_equal(truth, predicted)
        assert len(np.unique(truth.reshape(-1, 3), axis=0)) == 3  # two classes, and the edge


def test_classes_have_colours_of_their_own():
    for count in (2, 5, 20):
        colours = [colour(number, count) for number in range(-1, count)]
        assert len(set(colours)) == count + 1
    pixels = coloured(np.array([[[0, -1], [1, 1]]]), 2)
    assert pixels.shape == (1, 3, 2, 2) and (pixels[0, :, 0, 1] == 0.5).all()
    assert (pixels[0, :, 1, 0] == np.float32(colour(1, 2))).all()
