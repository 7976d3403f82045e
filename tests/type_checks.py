"""Types and shapes are checked once for each combination a function meets, not at every call.

The import hook of jaxtyping checks each call of each function of the package: half of the time of all tests, nearly all
of it on types and shapes that were found right before. Here a call is checked when its arguments or its result are of
types, shapes, number formats or short texts that this function has not had yet, four times at most in one test (the
numbers of active latents differ at every step), and only its first calls in a test are looked at: what a thousand
elements of a list are costs more to tell than what a test does with them. With `--every-call`, as in `make test-all`,
all are checked, in a sixth more time.
"""

import functools
import inspect
from collections.abc import Callable, Hashable, Iterable
from types import FunctionType
from typing import Any

import jaxtyping
import numpy as np
from torch import Tensor

MANY = 8
"""Items of a container that are looked at."""


MOST = 4
"""New combinations that are checked of one function in one test."""
LOOKS = 64
"""Calls of one function that are looked at in one test."""


class Checks:
    """What holds for all functions: whether every call is checked, and which test it is."""

    every_call = False
    test = 0


def kind(value: object) -> Hashable:
    """All that a check can depend on: the type, and of some types more."""
    of = type(value)
    more = MORE.get(of)
    if more is None:
        more = MORE[of] = next((function for base, function in BY_BASE.items() if issubclass(of, base)), type)
    return more(value)


def each(values: Iterable[object]) -> tuple[Hashable, ...]:
    return tuple([kind(value) for value in values])


BY_BASE: dict[type, Callable[[Any], Hashable]] = {
    Tensor: lambda x: (type(x), x.shape, x.dtype),
    np.ndarray: lambda x: (np.ndarray, x.shape, x.dtype),
    str: lambda text: text if len(text) < 40 else str,
    tuple: lambda items: (type(items), len(items), each(items[:MANY])),
    list: lambda items: (list, each(items[:MANY])),
    dict: lambda items: (dict, each(list(items)[:MANY]), each(list(items.values())[:MANY])),
}
MORE: dict[type, Callable[[Any], Hashable]] = {}


def once_for_each_kind(plain: Callable[..., Any], check: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Any:
    """`plain`, checked whenever it meets a new combination. The checks are built when it is first called: most
    functions are called in few processes."""
    checked: Callable[..., Any] | None = None
    known: dict[Hashable, set[Hashable]] = {}
    results: list[Any] = []
    test, left, looks = 0, MOST, LOOKS

    def call_or_result(*args: Any, **kwargs: Any) -> Any:
        return results.pop() if results else plain(*args, **kwargs)

    def looked_at() -> bool:
        nonlocal test, left, looks
        if test != Checks.test:
            test, left, looks = Checks.test, MOST, LOOKS
        looks -= 1
        return (looks >= 0 and left > 0) or Checks.every_call

    @functools.wraps(plain)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal checked, left
        if not looked_at():
            return plain(*args, **kwargs)
        given = each(args), kind(kwargs) if kwargs else None
        right = known.get(given)
        if right is None or Checks.every_call:
            left -= 1
            if checked is None:
                checked = check(like(plain, call_or_result))
            out = checked(*args, **kwargs)
            known.setdefault(given, set()).add(kind(out))
            return out
        out = plain(*args, **kwargs)
        if checked is not None and (found := kind(out)) not in right:
            left -= 1
            results.append(out)
            checked(*args, **kwargs)
            right.add(found)
        return out

    return call


def like(plain: Callable[..., Any], other: Any) -> Callable[..., Any]:
    """`other` with the signature of `plain`, and the names that its annotations were written with."""
    made = FunctionType(other.__code__, plain.__globals__, plain.__name__, None, other.__closure__)
    return functools.update_wrapper(made, plain)


def is_kernel(function: FunctionType) -> bool:
    """True for functions whose arguments say no types, or that they are constants of a kernel: Triton compiles the
    latter from their source, and there is nothing to check."""
    return all(getattr(said, "__name__", "") == "constexpr" for said in function.__annotations__.values())


def install() -> None:
    """Let what the import hook decorates from here on be checked once for each combination."""
    original: Any = jaxtyping.jaxtyped

    def jaxtyped(thing: Any = None, *, typechecker: Any) -> Any:
        if thing is None:
            return functools.partial(jaxtyped, typechecker=typechecker)
        check = functools.partial(original, typechecker=typechecker)
        if isinstance(thing, classmethod | staticmethod):
            return type(thing)(once_for_each_kind(thing.__func__, check))
        if isinstance(thing, property):
            return property(*(f and once_for_each_kind(f, check) for f in (thing.fget, thing.fset, thing.fdel)))
        if inspect.isclass(thing):
            if "__dataclass_fields__" in vars(thing) and "__init__" in vars(thing):
                thing.__init__ = once_for_each_kind(thing.__init__, check)
            return thing
        if inspect.isfunction(thing):
            return thing if is_kernel(thing) else once_for_each_kind(thing, check)
        return check(thing)

    jaxtyping.jaxtyped = jaxtyped
