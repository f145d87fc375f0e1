"""Every baseline learns what there is to learn in small generated sets."""

from dataclasses import dataclass

import numpy as np
import pytest

from hpcgeo.data.sample import Channel, Observation, Sample
from hpcgeo.errors import InputError
from hpcgeo.evaluate import baselines
from hpcgeo.evaluate.baselines import baselines as all_baselines
from hpcgeo.evaluate.baselines import fit_and_score
from hpcgeo.evaluate.features import PlainArrays
from hpcgeo.kinds.table import KINDS
from hpcgeo.kinds.target import IGNORED, Target

RED, GREEN = Channel("rgb", "R"), Channel("rgb", "G")
VV = Channel("sentinel1", "VV")
LIGHTS = (Channel("dmsp", "lights", 6), Channel("viirs", "DNB", 6))
TIME = np.array([[0.0, np.inf]])


@dataclass
class Made:
    """Samples that are made as they are read."""

    kind: str
    form: str
    count: int
    first: int = 0

    @property
    def channels(self) -> tuple[Channel, ...]:
        return {"vectors": LIGHTS, "series": (RED, VV)}.get(self.form, (RED, GREEN, VV))

    @property
    def target(self) -> Target:
        if self.kind == "regression":
            return Target(self.kind, ("wealth",), mean=(3.0,), std=(2.0,))
        names = ("a", "b") if self.kind in ("segmentation", "change") else ("a", "b", "c")
        return Target(self.kind, names)

    def __len__(self) -> int:
        return self.count

    def group(self, index: int) -> str:
        return str(index)

    def read(self, index: int) -> Sample:
        rng = np.random.default_rng([self.first, index])
        score = rng.uniform(-2, 2)
        observations, mask = getattr(self, f"_{self.form}")(rng, score)
        third = int(np.digitize(score, [-0.7, 0.7]))
        target = {
            "classification": lambda: np.int64(third),
            "multilabel": lambda: (score > np.array([-0.7, 0, 0.7])).astype(np.float32),
            "regression": lambda: np.array([score if index % 9 else np.nan], dtype=np.float32),
        }.get(self.kind, lambda: mask)()
        return Sample(tuple(observations), np.asarray(target), dense=KINDS[self.kind].dense)

    def _vectors(self, rng, score):
        """Lights of one of two sensors, as the year has it."""
        values = rng.normal(score, 0.5, (1, 1, 6)).astype(np.float32)
        return [Observation((LIGHTS[int(rng.integers(2))],), values, TIME)], None

    def _series(self, rng, score):
        """Two sensors with their own dates, and gaps."""
        seen = []
        for channel, dates in ((RED, 7), (VV, 4)):
            values = rng.normal(score, 0.5, (dates, 1, 1, 1)).astype(np.float32)
            values[rng.random(dates) < 0.3] = np.nan
            seen.append(Observation((channel,), values, np.zeros((dates, 2))))
        return seen, None

    def _images(self, rng, score):
        """A square whose brightness matters; radar at half the resolution; a band is missing."""
        values = rng.normal(0, 0.3, (1, 2, 16, 16)).astype(np.float32)
        row, column = rng.integers(0, 8, 2)
        square = slice(row, row + 8), slice(column, column + 8)
        values[(..., *square)] += score
        mask = np.zeros((16, 16), dtype=np.int64)
        mask[square] = 1
        radar = rng.normal(0, 0.3, (1, 1, 8, 8)).astype(np.float32)
        radar[..., row // 2 : row // 2 + 4, column // 2 : column // 2 + 4] += 2
        mask[:1] = IGNORED
        radar[:, :, 0] = np.nan
        both = [Observation((RED, GREEN), values, TIME), Observation((VV,), radar, TIME)]
        return both[: 1 if self.kind not in ("segmentation", "change") and score > 1 else 2], mask

    def _pairs(self, rng, score):
        """A square that is there on one of two dates."""
        values = rng.normal(0, 0.3, (2, 2, 16, 16)).astype(np.float32)
        mask = np.zeros((16, 16), dtype=np.int64)
        for date in (0, 1, None):  # the last one stays
            row, column = rng.integers(0, 10, 2)
            square = slice(row, row + 6), slice(column, column + 6)
            values[(slice(None) if date is None else date, slice(None), *square)] = 2
        mask[(values[0] - values[1]).mean(axis=0) ** 2 > 1] = 1
        return [Observation((RED, GREEN), values, np.zeros((2, 2)))], mask


#: Kind of task, form of its samples, metric, and what it has to reach: chance is a third, the mean
#: (r2 of 0), or all pixels of the second class (F1 below 0.6).
TASKS = [
    ("classification", "images", "accuracy", 0.6),
    ("classification", "series", "accuracy", 0.7),
    ("multilabel", "vectors", "f1", 0.85),
    ("regression", "vectors", "r2", 0.6),
    ("regression", "images", "r2", 0.4),
    ("segmentation", "images", "f1", 0.8),
    ("change", "pairs", "f1", 0.8),
]


@pytest.mark.parametrize(
    ("name", "kind", "form", "metric", "least"),
    [
        (name, *task)
        for task in TASKS
        for name, row in all_baselines().items()
        if row.suits(KINDS[task[0]])
        and (name != "resnet18" or task[:2] == ("regression", "images"))
    ],
)
def test_it_learns(monkeypatch, name, kind, form, metric, least):
    monkeypatch.setattr(baselines, "STEPS", 30)
    monkeypatch.setattr(baselines, "BATCH", 16)
    count = 40 if kind in ("segmentation", "change") else 120
    train, test = Made(kind, form, count), Made(kind, form, 45, first=1)
    score, _ = fit_and_score(name, train, test, metric)
    assert least < score <= 1


@pytest.mark.parametrize(
    ("name", "kind", "form"),
    [
        ("forest", "change", "pairs"),
        ("unet", "change", "pairs"),
        ("resnet18", "multilabel", "images"),
    ],
)
def test_a_seed_is_a_score(monkeypatch, name, kind, form):
    monkeypatch.setattr(baselines, "STEPS", 3)
    train, test = Made(kind, form, 8), Made(kind, form, 4, first=1)
    first, again = (fit_and_score(name, train, test, "f1", seed=3)[0] for _ in range(2))
    assert first == again


def test_what_is_missing_has_its_place():
    """A sample without radar has as long a vector and as many planes as one with it."""
    made = Made("regression", "images", 40)
    layout = PlainArrays(made)
    samples = [made.read(index) for index in range(40)]
    assert {len(sample.observations) for sample in samples} == {1, 2}
    assert {layout.vector(sample).shape for sample in samples} == {layout.vector(samples[0]).shape}
    for sample in samples:
        image = layout.image(sample)
        assert image.shape == (layout.bands, 16, 16) == (3, 16, 16)
        assert np.isfinite(image).all() and image[2].any() == (len(sample.observations) == 2)
        assert np.array_equal(image[:2], sample.observations[0].values[0])


def test_gaps_are_filled_along_lines():
    series = np.array([np.nan, 1, np.nan, 3, np.nan], dtype=np.float32)
    seen = Observation((RED,), series[:, None, None, None], np.zeros((5, 2)))

    class One(Made):
        channels = (RED,)

        def read(self, index):
            return Sample((seen,), np.int64(0))

    one = One("classification", "series", 1)
    assert PlainArrays(one).vector(one.read(0)).tolist() == [1, 1, 2, 3, 3]


def test_what_is_refused():
    train = Made("change", "pairs", 4)
    with pytest.raises(InputError, match="'resnet18' is none for change: forest, unet"):
        fit_and_score("resnet18", train, train, "iou")
    with pytest.raises(InputError, match="unknown baseline 'unett'"):
        fit_and_score("unett", train, train, "iou")
    with pytest.raises(InputError, match="metric r2 is none of change"):
        fit_and_score("unet", train, train, "r2")
    series = Made("classification", "series", 4)
    with pytest.raises(InputError, match="'resnet18' is for images"):
        fit_and_score("resnet18", series, series, "accuracy")
