"""Which values of a parameter `make test` takes, when all of them take long; CI takes all."""

from collections.abc import Iterable
from typing import Any

import pytest


def first_quick(values: Iterable[Any], quick: int = 8) -> list[Any]:
    """All values, those after the first `quick` marked slow."""
    return [as_slow(value) if place >= quick else value for place, value in enumerate(values)]


def every_second_quick(values: Iterable[Any]) -> list[Any]:
    """All values, every second one marked slow."""
    return [as_slow(value) if place % 2 else value for place, value in enumerate(values)]


def as_slow(value: Any) -> Any:
    """A value for which a test is slow."""
    return pytest.param(value, marks=pytest.mark.slow)
