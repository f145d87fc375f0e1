"""A number for each pixel, as a height above ground: a kind of task, and chips that have it."""

import numpy as np

from hpcgeo.data.readers.collection import Collection
from hpcgeo.data.sample import Channel, Observation, Sample
from hpcgeo.kinds.kind import Kind
from hpcgeo.kinds.states import Moments
from hpcgeo.kinds.target import Target

RGB = tuple(Channel("rgb", band) for band in "RGB")


class Heights(Kind):
    title = "a number for each pixel"
    label = "float32 (K, H, W), NaN where not known"
    metric = "rmse"
    states = (Moments,)
    dense = True

    def loss(self, answer, truth):  # (b, Q, K)
        known = truth.isfinite()
        return ((answer - truth.nan_to_num()) ** 2 * known).sum((1, 2)) / known.sum((1, 2))

    def decide(self, answer):
        return answer


HEIGHTS = Heights()


def collect(path, target, frame):
    """Chips whose height is the sum of their bands."""

    def load(index):
        rng = np.random.default_rng(index)
        values = rng.normal(size=(1, 3, 4, 4)).repeat(8, 2).repeat(8, 3).astype(np.float32)
        height = values[0].sum(0, keepdims=True) / 3**0.5
        height[0, :2] = np.nan
        return Sample((Observation(RGB, values, np.zeros((1, 2)), patch=frame.patch),), height)

    return Collection(
        target=Target("heights", ("height",)),
        channels=RGB,
        splits=np.array(["train"] * 32 + ["validation"] * 8 + ["test"] * 8),
        groups=np.array([str(number) for number in range(48)]),
        labels=np.zeros(0),
        fingerprint="made for a test",
        load=load,
    )
