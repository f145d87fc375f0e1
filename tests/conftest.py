"""Fixtures for every folder of tests."""

import pytest

from tests.slurm import slurm

__all__ = ["slurm"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses the cluster, so that `-m "not slurm"` leaves it out."""
    for item in items:
        if "slurm" in getattr(item, "fixturenames", ()):
            item.add_marker("slurm")
