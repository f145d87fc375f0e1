"""What the tests of studies start from."""

from tests.sweep.conftest import copied

__all__ = ["copied"]
