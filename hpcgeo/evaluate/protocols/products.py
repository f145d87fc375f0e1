"""The answers of many linear models are one matrix product: features are read once."""

from torch import Tensor


def times(features: Tensor, many: Tensor) -> Tensor:
    """Return the products of features (..., L) with each of P matrices (L, P, K), (..., P, K)."""
    return (features @ many.flatten(1)).reshape(*features.shape[:-1], *many.shape[1:])
