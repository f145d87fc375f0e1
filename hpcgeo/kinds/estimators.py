"""Models of scikit-learn that kinds of task are compared with; imported when they are fitted."""

from typing import Any

import numpy as np
import torch
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.multiclass import OneVsRestClassifier as OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier as KNeighborsClassifier
from sklearn.neighbors import KNeighborsRegressor as KNeighborsRegressor
from torch import Tensor

from hpcgeo.kinds.target import Array

TREES = 500


def ridge() -> Any:
    """Return a ridge regression; the penalty by leaving one out."""
    return RidgeCV(alphas=np.logspace(-1, 5, 25))


def logistic(seed: int) -> Any:
    """Return a logistic regression; the penalty by three folds."""
    return GridSearchCV(
        LogisticRegression(max_iter=2000, tol=1e-3),
        {"C": np.logspace(-2, 3, 6)},
        cv=KFold(3, shuffle=True, random_state=seed),
    )


def forest_of_numbers(seed: int) -> Any:
    """Return a random forest of numbers."""
    return RandomForestRegressor(TREES, random_state=seed, n_jobs=-1)


def forest_of_classes(seed: int) -> Any:
    """Return a random forest of classes."""
    return RandomForestClassifier(TREES, random_state=seed, n_jobs=-1)


def forest_of_pixels(seed: int) -> Any:
    """Return a random forest of the many pixels of images: fewer trees, larger leaves."""
    return RandomForestClassifier(TREES // 10, min_samples_leaf=3, random_state=seed, n_jobs=-1)


def log_probabilities(model: Any, vectors: Array, num_classes: int) -> Tensor:
    """Return logarithms of the probabilities of classes, (n, K): as a head, but for a constant."""
    found = np.zeros((len(vectors), num_classes))
    found[:, np.asarray(model.classes_, dtype=np.int64)] = model.predict_proba(vectors)
    return torch.from_numpy(found).log()


def log_odds(model: Any, vectors: Array, num_labels: int) -> Tensor:
    """Return logarithms of the odds of several labels each, (n, K): above 0 for yes."""
    found, classes = model.predict_proba(vectors), model.classes_
    if num_labels == 1:
        found, classes = [found], [classes]
    if isinstance(found, list):  # (n, classes that were there) of each label
        columns = zip(found, classes, strict=True)
        found = np.stack([each @ np.asarray(there, np.float64) for each, there in columns], axis=1)
    return torch.from_numpy(found).logit()
