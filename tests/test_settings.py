"""Settings refuse, when made, what cannot be (faults 4 and 23)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Le
from hypothesis import given
from hypothesis import strategies as st

from unbraid.settings import NonNegativeInt, PositiveFloat, Settings, Share, ShareBelowOne


@dataclass(frozen=True, kw_only=True)
class Sample(Settings):
    tokens: NonNegativeInt = 5
    warmup: Annotated[float, Ge(0), Le(1)] = 0.02
    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.99)
    kind: Literal["a", "b"] = "a"
    cap: PositiveFloat | None = None
    shares: Mapping[str, Share] = field(default_factory=dict)
    spans: tuple[Share, Share] | tuple[tuple[Share, Share], ...] = (0.1, 0.2)
    names: tuple[str, ...] = ()
    flag: bool = False
    least: int = 0

    def check_together(self) -> None:
        if self.least > self.tokens:
            raise ValueError("least is above tokens")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "below its bound": ({"tokens": -1}, "Sample.tokens is -1; it must be at least 0"),
    "a bool for a number": ({"tokens": True}, "a whole number"),
    "a fraction for a whole number": ({"tokens": 1.0}, "a whole number"),
    "text for a number": ({"tokens": "3"}, "a whole number"),
    "an item out of bounds": ({"betas": (0.9, 1.0)}, "items that are at least 0 and below 1"),
    "too few items": ({"betas": (0.9,)}, "a tuple of"),
    "nan": ({"warmup": float("nan")}, "a finite number"),
    "infinity": ({"cap": float("inf")}, "a finite number"),
    "above its bound": ({"warmup": 2}, "at most 1"),
    "no such choice": ({"kind": "c"}, "'a' or 'b'"),
    "an optional out of bounds": ({"cap": 0.0}, "above 0"),
    "a value of a mapping": ({"shares": {"a": 2.0}}, "at most 1"),
    "a list for a mapping": ({"shares": [1]}, "a mapping"),
    "an item of an item": ({"spans": ((0.1, 2.0),)}, "at most 1"),
    "text for many texts": ({"names": "abc"}, "a tuple"),
    "a number for a bool": ({"flag": 1}, "True or False"),
    "together": ({"tokens": 1, "least": 2}, "least is above tokens"),
}


@pytest.mark.parametrize(("given_", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_setting_that_cannot_be_is_refused_when_made_and_when_replaced(given_: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Sample(**given_)
    with pytest.raises(ValueError, match=reason):
        replace(Sample(), **given_)


def test_whole_numbers_stand_for_numbers_and_either_of_two_forms_is_taken() -> None:
    Sample(warmup=1, cap=3, shares={"a": 1}, spans=((0.1, 0.2), (0.3, 0.4)), names=("a", "b"))


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_a_share_is_taken_exactly_when_it_is_one(value: float) -> None:
    possible = 0 <= value <= 1
    try:
        Sample(warmup=value)
    except ValueError:
        assert not possible
    else:
        assert possible
