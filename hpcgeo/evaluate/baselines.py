"""What simpler models reach on a task: kNN, linear models, forests, small networks.

Each is fitted to a training split and scored on another by the metric of the task. Models of
scikit-learn are those that the kind of the task names (`hpcgeo.kinds.kind.Kind.baselines`).
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from torch import Tensor

from hpcgeo.data.labelled import TaskSet
from hpcgeo.data.sample import Float64, Sample
from hpcgeo.errors import InputError
from hpcgeo.evaluate.features import PlainArrays, Samples, local
from hpcgeo.evaluate.nets import ResNet18, UNet
from hpcgeo.kinds.kind import Kind
from hpcgeo.kinds.metrics import start
from hpcgeo.kinds.table import kind_of
from hpcgeo.kinds.target import Target, labelled
from hpcgeo.parallel.device import usable_device
from hpcgeo.tables import find, find_open, loaded, plugins

Array = npt.NDArray[Any]
#: From samples (b,) to the answers of a head, (b, K), or (b, K, H, W) of a dense kind.
Predict = Callable[[list[Sample]], Tensor]

#: Entry points of models that are probes and, of the samples themselves, baselines.
PROBES = "hpcgeo.probes"

BATCH = 32
#: Pixels of a training image that a forest sees.
PIXELS = 400
#: Of a network, each of `BATCH` samples.
STEPS = 1500


@dataclass(frozen=True)
class Baseline:
    """A model to compare with.

    Attributes:
        suits: whether it is for a kind of task.
        fit: to a set, with a seed.
        of_images: and of nothing else.
    """

    suits: Callable[[Kind], bool]
    fit: Callable[[Samples, int], Predict]
    of_images: bool = False


def suits(name: str, train: Samples) -> bool:
    """Return whether a baseline is for samples like these.

    Raises:
        InputError: no such baseline.
    """
    baseline = find(baselines(), name, "baseline")
    kind_fits = baseline.suits(kind_of(train.target))
    return kind_fits and (not baseline.of_images or PlainArrays(train).has_images)


def fit_and_score(
    name: str, train: Samples, test: TaskSet, metric: str, *, seed: int = 0, resamples: int = 0
) -> tuple[float, Float64]:
    """Fit a baseline to the training split of a task, and score it on another.

    Returns:
        The metric, and its values over resamples of the scored split, see `hpcgeo.kinds.states`.

    Raises:
        InputError: no such baseline or metric, or none for this kind of task.
    """
    baseline, kind = find(baselines(), name, "baseline"), kind_of(train.target)
    if not baseline.suits(kind):
        fitting = [other for other, row in baselines().items() if row.suits(kind)]
        kind_name = train.target.kind
        raise InputError(f"baseline {name!r} is none for {kind_name}: {', '.join(fitting)}")
    state = start(metric, train.target, resamples)
    predict = baseline.fit(train, seed)
    for first in range(0, len(test), BATCH):
        indices = range(first, min(first + BATCH, len(test)))
        samples = [test.read(index) for index in indices]
        truth = np.stack([sample.target for sample in samples])
        state.update([test.group(index) for index in indices], predict(samples), truth)
    return state.compute()


def fit_vectors(model: Any, vectors: Array, truth: Array) -> None:
    """Fit a model of scikit-learn to vectors (N, D) with known labels, of (N,) or (N, K)."""
    known = np.isfinite(truth).reshape(len(truth), -1).all(axis=1)
    truth = truth[:, 0] if truth.shape[1:] == (1,) else truth
    with warnings.catch_warnings():
        # A label or two of each of many classes are few, and classes all the same.
        warnings.filterwarnings("ignore", "The number of unique classes")
        model.fit(vectors[known], truth[known])


def probe_model(name: str, target: Target, seed: int) -> Any:
    """Return a model of vectors by name: of the kind of the task, or of an installed package.

    An entry point of the group `hpcgeo.probes` names what takes (target, seed) and returns it: an
    estimator of scikit-learn, with `predict`, or of classes `predict_proba`.

    Raises:
        InputError: nobody has that name; the message lists the known ones.
    """
    ours = kind_of(target).baselines(seed)
    if name in ours:
        return ours[name]
    return find_open({}, PROBES, name, "model", known=ours)(target, seed)


def _of_vectors(name: str, suits: Callable[[Kind], bool]) -> Baseline:
    """Return a model of scikit-learn, of vectors of samples or of pixels."""

    def fit(train: Samples, seed: int) -> Predict:
        kind, layout = kind_of(train.target), PlainArrays(train)
        fitted = _pixels if kind.dense else _vectors
        return fitted(probe_model(name, train.target, seed), kind, layout, train, seed)

    return Baseline(suits, fit)


def _vectors(model: Any, kind: Kind, layout: PlainArrays, train: Samples, seed: int) -> Predict:
    """Fit a model to descriptions of whole samples."""
    samples = [train.read(index) for index in range(len(train))]
    model = make_pipeline(SimpleImputer(keep_empty_features=True), model)
    truth = np.stack([sample.target for sample in samples])
    fit_vectors(model, np.stack([layout.vector(sample) for sample in samples]), truth)

    def predict(samples: list[Sample]) -> Tensor:
        return kind.answer(model, np.stack([layout.vector(each) for each in samples]), train.target)

    return predict


def _pixels(model: Any, kind: Kind, layout: PlainArrays, train: Samples, seed: int) -> Predict:
    """Fit a model to the surroundings of some labelled pixels of each image."""
    rng = np.random.default_rng(seed)
    features, labels = [], []
    for index in range(len(train)):
        sample = train.read(index)
        truth = sample.target.ravel()
        chosen = rng.permutation(np.flatnonzero(labelled(truth)))[:PIXELS]
        features.append(local(layout.image(sample))[chosen])
        labels.append(truth[chosen])
    model.fit(np.concatenate(features), np.concatenate(labels))

    def predict(samples: list[Sample]) -> Tensor:
        images = [layout.image(each) for each in samples]
        found = kind.answer(model, np.concatenate([local(each) for each in images]), train.target)
        return found.reshape(len(images), *images[0].shape[1:], -1).movedim(-1, 1)

    return predict


def _net(name: str, dense: bool, net_of: type[ResNet18] | type[UNet]) -> Baseline:
    """Return a network: AdamW, one cycle of the learning rate, eight symmetries."""

    def fit(train: Samples, seed: int) -> Predict:
        device = usable_device()
        layout, kind = PlainArrays(train), kind_of(train.target)
        if not layout.has_images:
            raise InputError(f"baseline {name!r} is for images: knn, linear or forest")
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            net = net_of(layout.bands, len(train.target.names)).to(device)
        rng = np.random.default_rng(seed)
        optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=STEPS)
        for _ in range(STEPS):
            chosen = rng.choice(len(train), min(BATCH, len(train)), replace=False)
            samples = [train.read(int(index)) for index in chosen]
            images = torch.from_numpy(np.stack([layout.image(each) for each in samples]))
            truth = torch.from_numpy(np.stack([each.target for each in samples]))
            images, truth = _turned(images, truth, rng, dense)
            answer, truth = net(images.to(device)), truth.to(device)
            if dense:
                answer, truth = answer.flatten(2).movedim(2, 1), truth.flatten(-2).movedim(-1, 1)
            loss = kind.loss(answer, truth).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        net.eval()

        @torch.no_grad()
        def predict(samples: list[Sample]) -> Tensor:
            images = np.stack([layout.image(each) for each in samples])
            return net(torch.from_numpy(images).to(device))

        return predict

    return Baseline(lambda kind: kind.labels and kind.dense == dense, fit, of_images=True)


def _turned(
    images: Tensor, truth: Tensor, rng: np.random.Generator, dense: bool
) -> tuple[Tensor, Tensor]:
    """Return a batch in one of the symmetries of a square; its labels too where they are dense."""
    flip, turns = rng.integers(2), int(rng.integers(4))

    def turned(x: Tensor) -> Tensor:
        return torch.rot90(x.flip(-1) if flip else x, turns, (-2, -1)).contiguous()

    return turned(images), turned(truth) if dense else truth


def whole(kind: Kind) -> bool:
    """Return whether a kind of task has a label for each whole sample."""
    return kind.labels and not kind.dense


_BASELINES: dict[str, Baseline] = {
    **{
        name: _of_vectors(name, lambda kind, name=name: name in kind.baselines(0))  # type: ignore[misc]
        for name in ("knn", "linear", "forest")
    },
    "resnet18": _net("resnet18", False, ResNet18),
    "unet": _net("unet", True, UNet),
}


@cache
def baselines() -> dict[str, Baseline]:
    """Return all baselines by name, also those that other packages add as `hpcgeo.baselines`."""
    probes = {name: _of_vectors(name, whole) for name in plugins(PROBES)}
    added = {name: loaded(entry) for name, entry in plugins("hpcgeo.baselines").items()}
    return _BASELINES | probes | added
