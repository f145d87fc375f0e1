"""Fixtures for every folder of tests."""

import pytest
from hypothesis import settings

from tests.slurm import slurm

__all__ = ["slurm"]

# No test asserts a time.
settings.register_profile("hpcgeo", deadline=None)
settings.load_profile("hpcgeo")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses the cluster, so that `-m "not slurm"` leaves it out."""
    for item in items:
        if "slurm" in getattr(item, "fixturenames", ()):
            item.add_marker("slurm")
