"""Settings that check themselves: each field is annotated with type and bounds, and invalid values are refused.

The check is made when the object is made, so that the command line, Python and files share one error message.

    @dataclass(frozen=True, kw_only=True)
    class Training(Settings):
        batch_size: PositiveInt = 2048
        warmup: Share = 0.02
        device: Device = "cpu"

        def check_together(self) -> None: ...

Bounds are those of `annotated_types`, so Hypothesis can draw values from the same annotations. Numbers must be finite
and fit into 64 bits, as others could not be stored or used for counting. An int is accepted for a float; a bool is no
number. An annotation that is no type of configuration (a tensor's shape, a name that cannot be resolved) is ignored,
and so are marks in `Annotated` that are no bounds.
"""

import dataclasses
import inspect
import math
import operator
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, wraps
from types import NoneType, SimpleNamespace, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt, MaxLen, MinLen, MultipleOf


@dataclasses.dataclass(frozen=True)
class Matches:
    """A bound of text: a regular expression must match all of it. `words`: its description after "it must be"."""

    pattern: str
    words: str


@dataclasses.dataclass(frozen=True)
class NamesDevice:
    """A bound of text: it names a device of torch."""


PositiveInt = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
TwoOrMore = Annotated[int, Ge(2)]
Seed = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]
"""A share of something, from 0 to 1."""
ShareAboveZero = Annotated[float, Gt(0), Le(1)]
ShareBelowOne = Annotated[float, Ge(0), Lt(1)]
ShareBetween = Annotated[float, Gt(0), Lt(1)]
"""A share above 0 and below 1."""
SomeText = Annotated[str, MinLen(1)]
Device = Annotated[str, NamesDevice()]
FolderName = Annotated[
    str, Matches(r"[a-z0-9][a-z0-9_.-]{0,199}", "lower-case letters, digits and - _ . (it names a folder)")
]

BOUNDS: Mapping[type, tuple[Callable[[Any], str], Callable[[Any, Any], bool]]] = {
    Ge: (lambda bound: f"at least {bound.ge:g}", lambda value, bound: operator.ge(value, bound.ge)),
    Gt: (lambda bound: f"above {bound.gt:g}", lambda value, bound: operator.gt(value, bound.gt)),
    Le: (lambda bound: f"at most {bound.le:g}", lambda value, bound: operator.le(value, bound.le)),
    Lt: (lambda bound: f"below {bound.lt:g}", lambda value, bound: operator.lt(value, bound.lt)),
    MultipleOf: (
        lambda bound: f"a multiple of {bound.multiple_of:g}",
        lambda value, bound: value % bound.multiple_of == 0,
    ),
    MinLen: (lambda bound: f"at least {bound.min_length} long", lambda value, bound: len(value) >= bound.min_length),
    MaxLen: (lambda bound: f"at most {bound.max_length} long", lambda value, bound: len(value) <= bound.max_length),
    Matches: (lambda bound: bound.words, lambda value, bound: re.fullmatch(bound.pattern, value) is not None),
    NamesDevice: (
        lambda bound: "cpu, cuda or mps; one of several is cuda:1",
        lambda value, bound: names_device(value),
    ),
}
"""For each kind of bound: its description in errors, and its test."""
NAMES = {int: "a whole number", float: "a number", bool: "True or False", str: "text", NoneType: "None"}
LARGEST = 2**63 - 1
_unchecked: ContextVar[bool] = ContextVar("unchecked", default=False)


def names_device(text: str) -> bool:
    """True for cpu, cuda and mps, and for what an extension of torch has registered; a number may follow."""
    found = re.fullmatch(r"([a-z]\w*)(:\d{1,4})?", text)
    return found is not None and (found[1] in ("cpu", "cuda", "mps") or found[1] == registered_device())


def registered_device() -> str | None:
    """Return the kind of device that an extension of torch has registered in this process; None without any."""
    torch = sys.modules.get("torch")  # a setting is no reason to import it: without it nothing is registered
    name = torch._C._get_privateuse1_backend_name() if torch is not None else ""
    return name if name and hasattr(torch, name) else None


class Settings:
    """Base of the frozen dataclasses that hold settings. An invalid value raises ValueError."""

    def __post_init__(self) -> None:
        if not _unchecked.get():
            self.store_objects()
            check_fields(self)
            self.check_together()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if own := cls.__dict__.get("__post_init__"):
            setattr(cls, "__post_init__", after_checks(own))  # noqa: B010 (no method is assigned to by type checkers)

    def store_objects(self) -> None:
        """Put what can be stored in the place of objects that were given. Called before the checks."""

    def check_together(self) -> None:
        """Raise ValueError for values that are valid one by one, but not together."""


def after_checks(own: Callable[..., None]) -> Callable[..., None]:
    """Return a class's own `__post_init__`, which would have skipped the checks, to be called after them. `initial`:
    values of its `InitVar` fields, which are given and not stored."""

    @wraps(own)
    def both(settings: Settings, *initial: Any) -> None:
        if not _unchecked.get():
            Settings.__post_init__(settings)
            own(settings, *initial)

    return both


@contextmanager
def unchecked() -> Iterator[None]:
    """Context manager in which settings are made without checks, for parsers that hide errors; `check_all` follows."""
    token = _unchecked.set(True)
    try:
        yield
    finally:
        _unchecked.reset(token)


def check_all(node: Any) -> None:
    """Raise ValueError for invalid settings that were made `unchecked`; inner settings are checked first."""
    if isinstance(node, Mapping | tuple | list):
        for item in node.values() if isinstance(node, Mapping) else node:
            check_all(item)
    elif dataclasses.is_dataclass(node):
        for field in dataclasses.fields(node):
            check_all(getattr(node, field.name))
        if isinstance(node, Settings):
            node.__post_init__()


def check_fields(settings: Any) -> None:
    """Raise ValueError for the first invalid field, with class, field, value and what it must be."""
    cls = type(settings)
    for name, hints in annotations(cls).items():
        value = getattr(settings, name)
        if fault := next(filter(None, (fault_of(value, hint) for hint in hints)), ""):
            raise ValueError(f"{cls.__name__}.{name} is {shown(value)}; it must be {fault}")


def checked(name: str, value: Any, hint: Any) -> Any:
    """Return an argument's value. Raises ValueError, with its `name`, unless the value fits the annotation `hint`."""
    if fault := fault_of(value, hint):
        raise ValueError(f"{name} is {shown(value)}; it must be {fault}")
    return value


@cache
def annotations(cls: type) -> dict[str, list[Any]]:
    """Return the annotations of every field of a dataclass, in the class and in its bases.

    So a subclass that changes a default need not repeat the bounds.
    """
    own = [annotated(base) for base in cls.__mro__]
    return {f.name: [hints[f.name] for hints in own if f.name in hints] for f in dataclasses.fields(cls)}


def annotated(cls: type) -> dict[str, Any]:
    """Return the annotations in one class; Any for names that only type checkers know."""
    return {name: evaluated(name, hint, cls) for name, hint in inspect.get_annotations(cls).items()}


def evaluated(name: str, hint: Any, cls: type) -> Any:
    """Evaluate one annotation, which may be text, in the module of its class."""
    alone = SimpleNamespace(__annotations__={name: hint})
    try:
        known = vars(sys.modules[cls.__module__])
        return get_type_hints(alone, known, dict(vars(cls)), include_extras=True)[name]
    except Exception:  # whatever an annotation raises that nobody has to be able to evaluate
        return Any


def fault_of(value: Any, hint: Any) -> str:
    """Describe what `value` must be instead, as the end of "it must be"; empty when it is valid."""
    kind, bounds = bounds_of(hint)
    if is_number(value) and not countable(value):
        return "a finite number" if isinstance(value, float) else "of at most 64 bits"
    if get_origin(kind) in (Union, UnionType):
        faults = [(fits(value, k), fault_of(value, k)) for k in get_args(kind)]
        if all(fault for _, fault in faults):
            return next((fault for fitting, fault in faults if fitting), described(hint))
    elif not fits(value, kind):
        return described(hint)
    if not all(holds(value, bound) for bound in bounds):
        return in_words(bounds)
    faults = (fault_of(item, item_kind) for item, item_kind in items_of(value, kind))
    return next((f"made of items that are {fault}" for fault in faults if fault), "")


def is_number(value: Any) -> bool:
    """True for int and float, not for bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def countable(value: int | float) -> bool:
    """True for finite numbers that fit into 64 bits."""
    return -LARGEST <= value <= LARGEST if isinstance(value, int) else math.isfinite(value)


def fits(value: Any, hint: Any) -> bool:
    """True if `value` is of the type, without its items; bools are no numbers. True for annotations without a check."""
    kind, _ = bounds_of(hint)
    origin, args = get_origin(kind), get_args(kind)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in args)
    if origin in (Union, UnionType):
        return any(fits(value, choice) for choice in args)
    if kind is None or kind is NoneType:
        return value is None
    if kind is float:
        return is_number(value)
    if isinstance(value, bool):
        return not (isinstance(kind, type) and issubclass(kind, int | float)) or kind is bool
    return is_a(value, origin or kind) and (origin is not tuple or as_long(value, args))


def is_a(value: Any, kind: Any) -> bool:
    """True if `value` is of a plain type; lists and tuples are equivalent, as JSON has only lists."""
    if not isinstance(kind, type):
        return True
    if issubclass(kind, list | Sequence) and not issubclass(kind, str | tuple):
        # Lists come back from JSON as tuples. Text is a sequence of texts to Python, and to nobody else.
        return isinstance(value, list | tuple | kind) and not isinstance(value, str)
    if issubclass(kind, dict):
        return isinstance(value, Mapping)
    try:
        return isinstance(value, kind)
    except TypeError:  # a protocol that is not for the time of running
        return True


def as_long(value: tuple[Any, ...], args: tuple[Any, ...]) -> bool:
    """True if a tuple has as many items as its annotation."""
    return not args or args[-1] is Ellipsis or len(value) == len(args)


def bounds_of(hint: Any) -> tuple[Any, list[Any]]:
    """Return the type without its bounds, and the bounds. Named aliases and NewTypes are resolved."""
    while resolved := getattr(hint, "__supertype__", None) or getattr(hint, "__value__", None):
        hint = resolved
    if get_origin(hint) is not Annotated:
        return hint, []
    inner, *extras = get_args(hint)
    flat = [part for extra in extras for part in (extra if isinstance(extra, GroupedMetadata) else [extra])]
    return inner, [part for part in flat if type(part) in BOUNDS]


def holds(value: Any, bound: Any) -> bool:
    """True if `value` satisfies a bound."""
    try:
        return BOUNDS[type(bound)][1](value, bound)
    except TypeError:
        return value is None  # a bound of an optional type


def in_words(bounds: list[Any]) -> str:
    """Describe bounds, as in "at least 0 and below 1"."""
    return " and ".join(BOUNDS[type(bound)][0](bound) for bound in bounds)


def described(hint: Any) -> str:
    """Describe a type, as the end of "it must be"."""
    kind, bounds = bounds_of(hint)
    origin, args = get_origin(kind), get_args(kind)
    if kind in NAMES:
        text = NAMES[kind]
    elif origin is Literal:
        text = " or ".join(map(repr, args))
    elif origin in (Union, UnionType):
        text = " or ".join(map(described, args))
    elif origin is tuple and args[-1:] == (Ellipsis,):
        text = f"a tuple, each item {described(args[0])}"
    elif origin is tuple:
        text = f"a tuple of {', '.join(map(described, args))}"
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        text = f"a mapping from names to {described(args[-1])}"
    else:
        name = getattr(origin or kind, "__name__", str(kind))
        text = f"{'an' if name[:1] in 'AEIOU' else 'a'} {name}"
    return f"{text}, {in_words(bounds)}" if bounds else text


def items_of(value: Any, kind: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the items of a tuple, list or mapping, each with its annotation."""
    args = get_args(kind)
    if not args or get_origin(kind) in (Union, UnionType, Literal):
        return
    if isinstance(value, Mapping) and len(args) == 2:
        for name, item in value.items():
            yield from ((name, args[0]), (item, args[1]))
    elif isinstance(value, tuple) and get_origin(kind) is tuple:
        yield from zip(value, [args[0]] * len(value) if args[-1] is Ellipsis else args, strict=False)
    elif isinstance(value, Collection) and not isinstance(value, str | Mapping) and len(args) == 1:
        yield from ((item, args[0]) for item in value)


def shown(value: Any) -> str:
    """A value as an error shows it: short, in one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}…"
