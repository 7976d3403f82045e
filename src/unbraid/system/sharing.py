"""Values that several callers need, made once while a context is open, in bounded memory; forgotten when it closes.

    @shared
    def probes(source: Source, rows: int) -> Probes: ...

    with sharing():
        probes(world, 100); probes(world, 100)      # fitted once

Arguments are compared as a dict's keys are: settings (sources) by value, tensors and dictionaries by identity; a call
with one that cannot be a key is not shared. Nor is anything outside of `sharing`, so that what is changed in place
between two calls is read anew.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
from torch import Tensor, nn

LIMIT = 2**30
"""Bytes kept at most, of all functions together."""

P = ParamSpec("P")
T = TypeVar("T")


class Store:
    """Values by key, of at most `limit` bytes: those used longest ago are dropped first."""

    def __init__(self, limit: int = LIMIT):
        self.limit = limit
        self.values: OrderedDict[Hashable, tuple[Any, Sequence[Any]]] = OrderedDict()
        """Each with what its key keeps in memory."""

    def get(self, key: Hashable, make: Callable[[], Any], held: Sequence[Any] = ()) -> Any:
        """Return the value kept under a key, or make it. What is too large to keep is returned all the same.

        `held`: tensors and dictionaries in the key, which stay in memory as long as the value does.
        """
        if key in self.values:
            self.values.move_to_end(key)
            return self.values[key][0]
        value = make()
        self.values[key] = value, held
        while self.values and self.bytes() > self.limit:
            self.values.popitem(last=False)
        return value

    def bytes(self) -> int:
        """Return the size of all arrays kept, each counted once. Values may grow after they were kept.

        What a source has made of itself is not counted: its runs hold it.
        """
        seen: set[int] = set()
        return sum(size(value, seen) for value in self.values.values())


_store: ContextVar[Store | None] = ContextVar("what is shared", default=None)


@contextmanager
def sharing(limit: int = LIMIT) -> Iterator[None]:
    """Share within. Inside of another `sharing`, that one goes on."""
    if _store.get() is not None:
        yield
        return
    before = _store.set(Store(limit))
    try:
        yield
    finally:
        _store.reset(before)


def share_to_the_end() -> None:
    """Share from now on until this process ends: for a worker that is given tasks one by one."""
    if _store.get() is None:
        _store.set(Store())


def shared(make: Callable[P, T]) -> Callable[P, T]:
    """Call a function once for equal arguments within `sharing`. Its values must not be changed in place."""

    @wraps(make)
    def once(*args: P.args, **kwargs: P.kwargs) -> T:
        store, key = _store.get(), (make, args, tuple(sorted(kwargs.items())))
        if store is None or not is_key(key):
            return make(*args, **kwargs)
        held = [one for one in (*args, *kwargs.values()) if isinstance(one, Tensor | nn.Module)]
        return store.get(key, lambda: make(*args, **kwargs), held)

    return once


def is_key(value: object) -> bool:
    """Return whether a value can be a dictionary's key."""
    try:
        hash(value)
    except TypeError:
        return False
    return True


def size(value: Any, seen: set[int]) -> int:
    """Return the bytes of the arrays in a value. `seen`: ids of what has been counted, and addresses of its memory."""
    is_array = isinstance(value, Tensor | np.ndarray)
    place, count = memory(value) if is_array else (id(value), 0)
    if place in seen:
        return 0
    seen.add(place)
    if is_array:
        return count
    if isinstance(value, Mapping):
        return sum(size(item, seen) for item in value.values())
    if isinstance(value, tuple | list | set | frozenset):
        return sum(size(item, seen) for item in value)
    return sum(size(item, seen) for item in vars(value).values()) if hasattr(value, "__dict__") else 0


def memory(array: Tensor | np.ndarray) -> tuple[int, int]:
    """Return where the memory of an array begins, and its bytes: all that a view keeps, not only what it shows."""
    if isinstance(array, Tensor):
        return array.untyped_storage().data_ptr(), array.untyped_storage().nbytes()
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array.ctypes.data, array.nbytes
