"""Settings that check themselves: every field has its type and bounds beside it, and a value that cannot be is refused
when the object is made. So the command line, Python and files read from disk share one refusal.

    @dataclass(frozen=True, kw_only=True)
    class Training(Settings):
        batch_size: PositiveInt = 2048
        warmup: Annotated[float, Ge(0), Le(1)] = 0.02

Bounds are those of `annotated_types`, so Hypothesis can draw values from the same annotations. Numbers must be finite:
what is not could not be stored. An int is taken where a float is asked for; a bool is no number.
"""

import dataclasses
import inspect
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from types import UnionType
from typing import Annotated, Any, ClassVar, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt, MultipleOf
from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

PositiveInt = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]
"""A share of something: 0 and 1 can be."""
ShareBelowOne = Annotated[float, Ge(0), Lt(1)]

BOUNDS: Mapping[type, tuple[str, str, Callable[[Any, Any], bool]]] = {
    Ge: ("ge", "at least", operator.ge),
    Gt: ("gt", "above", operator.gt),
    Le: ("le", "at most", operator.le),
    Lt: ("lt", "below", operator.lt),
    MultipleOf: ("multiple_of", "a multiple of", lambda value, step: value % step == 0),
}
"""Of each kind of bound: the field that holds its limit, how an error says it, and its test."""


class Settings:
    """Base of the frozen dataclasses that a user fills. Making one with a value that cannot be raises ValueError."""

    def __post_init__(self) -> None:
        check_fields(self)
        self.check_together()

    def check_together(self) -> None:
        """Raise ValueError for values that are possible one by one, but not together."""


def check_fields(settings: Any) -> None:
    """Raise ValueError, naming class, field, value and what it must be, for the first field that cannot be."""
    cls = type(settings)
    hints = annotations(cls)
    for field in dataclasses.fields(settings):
        if fault := fault_of(getattr(settings, field.name), hints[field.name]):
            raise ValueError(
                f"{cls.__name__}.{field.name} is {shown(getattr(settings, field.name))}; it must be {fault}"
            )


@cache
def annotations(cls: type) -> dict[str, Any]:
    """The annotation of every field, with its bounds."""
    return {name: hint for name, hint in get_type_hints(cls, include_extras=True).items() if not_classvar(hint)}


def not_classvar(hint: Any) -> bool:
    return hint is not ClassVar and get_origin(hint) is not ClassVar


def fault_of(value: Any, hint: Any) -> str:
    """What `value` must be instead, as the end of "it must be"; empty when it can be."""
    if is_number(value) and not math.isfinite(value):
        return "a finite number"
    if not fits(value, hint):
        return described(hint)
    inner, bounds = bounds_of(hint)
    if bounds and is_number(value) and not all(holds(value, bound) for bound in bounds):
        return in_words(bounds)
    if get_origin(inner) in (Union, UnionType):
        faults = [fault_of(value, kind) for kind in get_args(inner) if fits(value, kind)]
        return min(faults, key=len)  # empty when one alternative takes it
    faults = (fault_of(item, kind) for item, kind in items_of(value, inner))
    return next((f"made of items that are {fault}" for fault in faults if fault), "")


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def fits(value: Any, hint: Any) -> bool:
    """Whether `value` is of the type; bools are no numbers, whatever Python says."""
    if isinstance(value, bool) and not allows_bool(hint):
        return False
    try:
        check_type(value, hint, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
    except TypeCheckError:
        return False
    return True


def allows_bool(hint: Any) -> bool:
    inner, _ = bounds_of(hint)
    return inner in (bool, Any, object) or any(arg is bool or allows_bool(arg) for arg in get_args(inner))


def bounds_of(hint: Any) -> tuple[Any, list[Any]]:
    """The type without its bounds, and the bounds."""
    if get_origin(hint) is not Annotated:
        return hint, []
    inner, *extras = get_args(hint)
    flat = [part for extra in extras for part in (extra if isinstance(extra, GroupedMetadata) else [extra])]
    return inner, [part for part in flat if type(part) in BOUNDS]


def holds(value: int | float, bound: Any) -> bool:
    limit, _, test = BOUNDS[type(bound)]
    return test(value, getattr(bound, limit))


def in_words(bounds: list[Any]) -> str:
    """ "at least 0 and below 1"."""
    return " and ".join(f"{word} {getattr(b, name):g}" for b in bounds for name, word, _ in [BOUNDS[type(b)]])


def described(hint: Any) -> str:
    """A type in words, as the end of "it must be"."""
    inner, bounds = bounds_of(hint)
    names = {int: "a whole number", float: "a number", bool: "True or False", str: "text", type(None): "None"}
    args = get_args(inner)
    if inner in names:
        text = names[inner]
    elif get_origin(inner) is tuple and args and args[-1] is Ellipsis:
        text = f"a tuple, each item {described(args[0])}"
    elif get_origin(inner) is tuple:
        text = f"a tuple of {', '.join(map(described, args))}"
    elif args and not isinstance(inner, type) and get_origin(inner) not in (dict, list, Mapping):
        words = [repr(a) if isinstance(a, str | int) else described(a) for a in args]
        text = " or ".join(words)
    elif inspect.isclass(origin := get_origin(inner)) and issubclass(origin, Mapping):
        text = f"a mapping from names to {described(args[-1])}"
    else:
        text = f"a {getattr(inner, '__name__', inner)}"
    return f"{text}, {in_words(bounds)}" if bounds else text


def items_of(value: Any, hint: Any) -> Iterator[tuple[Any, Any]]:
    """The items of a tuple or mapping, each with its annotation."""
    args = get_args(hint)
    if isinstance(value, Mapping) and len(args) == 2:
        yield from ((item, args[1]) for item in value.values())
    elif isinstance(value, tuple) and get_origin(hint) is tuple:
        kinds = [args[0]] * len(value) if args[-1:] == (Ellipsis,) else args
        yield from zip(value, kinds, strict=False)


def shown(value: Any) -> str:
    """A value as an error shows it: short."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
