"""Features of samples that are somewhat alike within a class, for tests of protocols."""

import numpy as np

from hpcgeo.evaluate.protocols.protocol import Described
from hpcgeo.kinds.target import Target


def target(kind: str, num_outputs: int) -> Target:
    return Target(kind, tuple(f"output {number}" for number in range(num_outputs)))


def split(vectors, truth) -> Described:
    return Described(
        np.asarray(vectors, np.float32), np.asarray(truth), [str(n) for n in range(len(vectors))]
    )


def classes(size: int, width: int, num_classes: int, seed: int = 0, noise: float = 1.5):
    """Return vectors (N, D) of uneven variance and classes (N,)."""
    rng = np.random.default_rng(seed)
    middle = np.random.default_rng(99).normal(size=(num_classes, width))
    truth = rng.integers(0, num_classes, size)
    vectors = (middle[truth] + noise * rng.normal(size=(size, width))) / np.sqrt(
        1 + np.arange(width)
    )
    return vectors.astype(np.float32) + 3, truth


def labels(size: int, width: int, num_labels: int, seed: int = 0):
    """Return vectors (N, D) and labels (N, K) of 0 and 1."""
    rng = np.random.default_rng(seed)
    weights = np.random.default_rng(98).normal(size=(width, num_labels))
    vectors = rng.normal(size=(size, width)).astype(np.float32)
    return vectors, (vectors @ weights + rng.normal(size=(size, num_labels)) > 0).astype(np.float32)


def numbers(size: int, width: int, num_outputs: int, seed: int = 0):
    """Return vectors (N, D) and numbers (N, K)."""
    rng = np.random.default_rng(seed)
    weights = np.random.default_rng(97).normal(size=(width, num_outputs))
    vectors = rng.normal(size=(size, width)).astype(np.float32)
    return vectors, (vectors @ weights + rng.normal(size=(size, num_outputs))).astype(np.float32)


def chips(size: int, num_classes: int, seed: int = 0):
    """Return features of 4 x 4 patches (N, 4, 4, 8) and classes of 16 x 16 pixels."""
    rng = np.random.default_rng(seed)
    patches = np.repeat(np.repeat(rng.integers(0, num_classes, (size, 2, 2)), 2, 1), 2, 2)
    vectors = np.eye(num_classes, 8)[patches] + 0.5 * rng.normal(size=(*patches.shape, 8))
    return vectors.astype(np.float32), np.repeat(np.repeat(patches, 4, 1), 4, 2)
