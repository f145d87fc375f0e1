"""A layout: images (N, H, W, 3), the name of each one's class and its split in one .npz file."""

from functools import partial

import numpy as np

from hpcgeo.data.readers import collection as c
from hpcgeo.data.sample import Channel, Observation, Sample
from hpcgeo.kinds.target import Target

RGB = tuple(Channel("rgb", band) for band in "RGB")


def collect(path, target, frame):
    """Photographs and their classes in one .npz file.

    Its arrays are images, classes and splits.
    """
    c.single_target(target, "class")
    arrays = c.read_arrays(path, ("images", "classes", "splits"))
    classes, labels = c.numbered(arrays["classes"].tolist())
    names = [f"{path}[{number}]" for number in range(len(labels))]
    return c.Collection(
        target=Target("classification", classes),
        channels=RGB,
        splits=c.one_of_splits(arrays["splits"].tolist(), path),
        groups=np.array(names),
        labels=labels,
        fingerprint=c.checksum([path]),
        load=partial(_load, path, arrays["images"], labels, frame),
    )


def _load(path, images, labels, frame, index):
    bands = images[index].transpose(2, 0, 1).astype("float32")
    values = c.fit(bands, frame, path)[None]  # (1, 3, H, W)
    return Sample((Observation(RGB, values, c.ANY_TIME, patch=frame.patch),), labels[index])
