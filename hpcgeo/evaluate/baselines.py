"""What simpler models reach on a task: neighbours, linear models, forests, small networks.

Each is fitted to a training part and scored on a test part by the metric of the task.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from torch.nn import functional as F

from hpcgeo.data.labelled import TaskSet
from hpcgeo.data.sample import IGNORED, Float64, Kind, Sample, Target
from hpcgeo.errors import InputError
from hpcgeo.evaluate.features import Layout, Samples, local
from hpcgeo.evaluate.nets import ResNet18, UNet
from hpcgeo.kinds.bootstrap import Tally
from hpcgeo.kinds.metrics import size, value
from hpcgeo.tables import find

Array = npt.NDArray[Any]
#: From samples to their predictions, in the form that `sums` wants them.
Predict = Callable[[list[Sample]], Array]

BATCH = 32
#: Pixels of a training image that a forest sees.
PIXELS = 400
TREES = 500
#: Of a network, each of `BATCH` samples.
STEPS = 1500

WHOLE: tuple[Kind, ...] = ("classification", "multilabel", "regression")
_DENSE: tuple[Kind, ...] = ("segmentation", "change")


@dataclass(frozen=True)
class Baseline:
    """A model to compare with: the kinds of task it is for, and how it is fitted (set, seed)."""

    kinds: tuple[Kind, ...]
    fit: Callable[[Samples, int], Predict]
    of_images: bool = False  #: and of nothing else


def suits(name: str, train: Samples) -> bool:
    """Return whether a baseline is for samples like these.

    Raises:
        InputError: no such baseline.
    """
    baseline: Baseline = find(BASELINES, name, "baseline")
    kind_fits = train.target.kind in baseline.kinds
    return kind_fits and (not baseline.of_images or Layout(train).has_images)


def fit_and_score(
    name: str, train: Samples, test: TaskSet, metric: str, *, seed: int = 0, resamples: int = 0
) -> tuple[float, Float64]:
    """Fit a baseline to the training part of a task, and score it on the test part.

    Returns:
        The metric, and its values over resamples of the test part, see `Tally`.

    Raises:
        InputError: no such baseline or metric, or none for this kind of task.
    """
    baseline: Baseline = find(BASELINES, name, "baseline")
    target = train.target
    if target.kind not in baseline.kinds:
        fitting = [other for other, row in BASELINES.items() if target.kind in row.kinds]
        raise InputError(f"baseline {name!r} is none for {target.kind}: {', '.join(fitting)}")
    value(metric, np.zeros(size(target)), target)  # is there one? before the work
    predict = baseline.fit(train, seed)
    tally = Tally(target, resamples)
    for start in range(0, len(test), BATCH):
        indices = range(start, min(start + BATCH, len(test)))
        samples = [test.read(index) for index in indices]
        truth = np.stack([sample.target for sample in samples])
        groups = [test.group(index) for index in indices]
        tally.add(groups, predict(samples).reshape(truth.shape), truth)
    return tally.value(metric)


def fit_vectors(model: Any, vectors: Array, truth: Array) -> None:
    """Fit a model of scikit-learn to vectors (N, D) with known labels, of (N,) or (N, K)."""
    known = np.isfinite(truth).reshape(len(truth), -1).all(axis=1)
    truth = truth[:, 0] if truth.shape[1:] == (1,) else truth
    with warnings.catch_warnings():
        # A label or two of each of many classes are few, and classes all the same.
        warnings.filterwarnings("ignore", "The number of unique classes")
        model.fit(vectors[known], truth[known])


def _vectors(
    models: Callable[[Target, int], Any],
) -> Callable[[Samples, int], Predict]:
    """Return the fit of a model of scikit-learn to descriptions of whole samples."""

    def fit(train: Samples, seed: int) -> Predict:
        layout = Layout(train)
        vectors, labels = [], []
        for index in range(len(train)):
            sample = train.read(index)
            vectors.append(layout.vector(sample))
            labels.append(sample.target)
        model = make_pipeline(SimpleImputer(keep_empty_features=True), models(train.target, seed))
        fit_vectors(model, np.stack(vectors), np.stack(labels))

        def predict(samples: list[Sample]) -> Array:
            return np.asarray(model.predict(np.stack([layout.vector(each) for each in samples])))

        return predict

    return fit


def neighbours(target: Target, seed: int) -> Any:
    """Return 10 nearest neighbours of numbers, 5 of classes."""
    return KNeighborsRegressor(10) if target.kind == "regression" else KNeighborsClassifier(5)


def linear(target: Target, seed: int) -> Any:
    """Return a ridge of numbers, a logistic regression of classes; the penalty by folds."""
    if target.kind == "regression":
        return RidgeCV(alphas=np.logspace(-1, 5, 25))
    model = GridSearchCV(
        LogisticRegression(max_iter=2000, tol=1e-3),
        {"C": np.logspace(-2, 3, 6)},
        cv=KFold(3, shuffle=True, random_state=seed),
    )
    return OneVsRestClassifier(model) if target.kind == "multilabel" else model


def _trees(target: Target, seed: int) -> Any:
    kind = RandomForestRegressor if target.kind == "regression" else RandomForestClassifier
    return kind(TREES, random_state=seed, n_jobs=-1)


def _forest(train: Samples, seed: int) -> Predict:
    if train.target.kind in WHOLE:
        return _vectors(_trees)(train, seed)
    layout = Layout(train)
    rng = np.random.default_rng(seed)
    features, labels = [], []
    for index in range(len(train)):
        sample = train.read(index)
        classes = sample.target.ravel()
        known = np.flatnonzero(classes != IGNORED)
        chosen = rng.permutation(known)[:PIXELS]
        features.append(local(layout.image(sample))[chosen])
        labels.append(classes[chosen])
    model = RandomForestClassifier(TREES // 10, min_samples_leaf=3, random_state=seed, n_jobs=-1)
    model.fit(np.concatenate(features), np.concatenate(labels))

    def predict(samples: list[Sample]) -> Array:
        pixels = [local(layout.image(each)) for each in samples]
        return np.asarray(model.predict(np.concatenate(pixels)))

    return predict


def _net(name: str, kind: type[ResNet18] | type[UNet]) -> Callable[[Samples, int], Predict]:
    """Return the fit of a network: AdamW, one cycle of the learning rate, eight symmetries."""

    def fit(train: Samples, seed: int) -> Predict:
        device = torch.accelerator.current_accelerator() or torch.device("cpu")
        layout, target = Layout(train), train.target
        if not layout.has_images:
            raise InputError(f"baseline {name!r} is for images: neighbours, linear or forest")
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            net = kind(layout.bands, len(target.names)).to(device)
        rng = np.random.default_rng(seed)
        optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=STEPS)
        for _ in range(STEPS):
            chosen = rng.choice(len(train), min(BATCH, len(train)), replace=False)
            samples = [train.read(int(index)) for index in chosen]
            images = torch.from_numpy(np.stack([layout.image(each) for each in samples]))
            truth = torch.from_numpy(np.stack([each.target for each in samples]))
            images, truth = _turned(images, truth, rng, target.kind in _DENSE)
            loss = _loss(net(images.to(device)), truth.to(device), target.kind)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        net.eval()

        @torch.no_grad()
        def predict(samples: list[Sample]) -> Array:
            images = np.stack([layout.image(each) for each in samples])
            answers = net(torch.from_numpy(images).to(device)).cpu()
            if target.kind == "regression":
                return answers.numpy()
            return (answers > 0 if target.kind == "multilabel" else answers.argmax(1)).numpy()

        return predict

    return fit


def _turned(
    images: torch.Tensor, truth: torch.Tensor, rng: np.random.Generator, dense: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a batch in one of the symmetries of a square; its labels too where they are dense."""
    flip, turns = rng.integers(2), int(rng.integers(4))

    def turned(x: torch.Tensor) -> torch.Tensor:
        return torch.rot90(x.flip(-1) if flip else x, turns, (-2, -1)).contiguous()

    return turned(images), turned(truth) if dense else truth


def _loss(answers: torch.Tensor, truth: torch.Tensor, kind: Kind) -> torch.Tensor:
    if kind == "regression":
        known = truth.isfinite()
        return F.mse_loss(answers[known], truth[known])
    if kind == "multilabel":
        return F.binary_cross_entropy_with_logits(answers, truth)
    return F.cross_entropy(answers, truth, ignore_index=IGNORED)


#: By name.
BASELINES: dict[str, Baseline] = {
    "neighbours": Baseline(WHOLE, _vectors(neighbours)),
    "linear": Baseline(WHOLE, _vectors(linear)),
    # Of images with a class for each pixel, a forest over the pixels' surroundings.
    "forest": Baseline((*WHOLE, *_DENSE), _forest),
    "resnet18": Baseline(WHOLE, _net("resnet18", ResNet18), of_images=True),
    "unet": Baseline(_DENSE, _net("unet", UNet), of_images=True),
}
