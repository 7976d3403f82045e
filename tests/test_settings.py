"""Settings refuse, when made, what cannot be (faults 4 and 23)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import pytest
import torch
from annotated_types import Ge, Le
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Float
from torch import Tensor

from unbraid.config.settings import (
    NonNegativeInt,
    PositiveFloat,
    Settings,
    Share,
    ShareBelowOne,
    check_all,
    checked,
    unchecked,
)


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


# ---- classes of users


@dataclass(frozen=True, kw_only=True)
class Heavier(Sample):
    warmup: float = 0.5
    shape: "Float[Tensor, 'row d_in'] | None" = None
    unknown: "OnlyForTypeCheckers" = None  # noqa: F821  # pyright: ignore[reportUndefinedVariable]
    widths: list[NonNegativeInt] = field(default_factory=list)
    anything: Any = None
    free: float = -1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "anything", 1 / (self.tokens + 1))


def test_a_default_given_anew_keeps_the_bounds_of_the_base():
    assert Heavier().warmup == 0.5
    with pytest.raises(ValueError, match="Heavier.warmup is 2; it must be at least 0 and at most 1"):
        Heavier(warmup=2)


def test_annotations_that_say_nothing_of_values_are_passed_over_and_the_others_are_not():
    made = Heavier(shape=torch.ones(2, 3), unknown=object(), free=-7.5)
    assert made.free == -7.5
    with pytest.raises(ValueError, match="Heavier.free is nan; it must be a finite number"):
        Heavier(free=float("nan"))
    with pytest.raises(ValueError, match="Heavier.widths is .* items that are at least 0"):
        Heavier(widths=[1, -1])
    read: Any = (1, 2)
    assert Heavier(widths=read).widths == (1, 2), "lists come back from JSON as tuples"


def test_a_class_with_a_post_init_of_its_own_is_checked_before_it():
    assert Heavier(tokens=1).anything == 0.5
    with pytest.raises(ValueError, match="Heavier.tokens is -1"):
        Heavier(tokens=-1)  # unchecked, it would divide by zero


def test_numbers_that_cannot_be_stored_are_refused_however_large():
    for value in (2**63, -(2**63), 10**400):
        with pytest.raises(ValueError, match="of at most 64 bits"):
            Sample(least=value)
        with pytest.raises(ValueError, match="of at most 64 bits"):
            Sample(cap=value)


def test_what_a_parser_makes_unchecked_is_checked_after_it_inside_first():
    @dataclass(frozen=True, kw_only=True)
    class Outer(Settings):
        inner: Sample
        by_name: Mapping[str, Sample] = field(default_factory=dict)

        def check_together(self) -> None:
            assert self.inner.warmup <= 1, "asked of what is checked already"

    with unchecked():
        outer, named = Outer(inner=Sample(warmup=2)), Outer(inner=Sample(), by_name={"a": Sample(tokens=-1)})
    with pytest.raises(ValueError, match="Sample.warmup is 2"):
        check_all(outer)
    with pytest.raises(ValueError, match="Sample.tokens is -1"):
        check_all((named,))
    check_all({"a": Outer(inner=Sample())})
    with pytest.raises(ValueError, match="Sample.tokens is -2"):
        Sample(tokens=-2)


def test_an_argument_that_is_no_field_shares_the_bounds():
    assert checked("tokens", 3, NonNegativeInt) == 3
    with pytest.raises(ValueError, match="tokens is -1; it must be at least 0"):
        checked("tokens", -1, NonNegativeInt)
