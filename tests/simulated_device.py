"""A second device without hardware: tensors that say they are on `sim:0`, and counts of what makes the host wait.

It is a Python backend of torch's PrivateUse1 key. A tensor wraps one on the CPU, which every operation is computed on;
what CUDA refuses is refused: tensors of two devices in one operation, and a generator of the CPU for a tensor of the
device. Counted by source line of the package is what `torch.cuda.set_sync_debug_mode` warns of:

    results whose size or value the host must know     item, bool, nonzero, masks as indices, bincount, unique, …
    copies that block                                  to the CPU; to the device unless non_blocking and, beyond
                                                       64 kB, from page-locked memory

Indices on the CPU and decompositions that check their success count too.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary

import unbraid

NAME = "sim"
PACKAGE = str(Path(unbraid.__file__).parent)
COPIES = ("_to_copy", "copy_", "_copy_from")
INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index")
SIZED_BY_VALUES = frozenset({
    "_local_scalar_dense", "nonzero", "masked_select", "bincount", "equal", "histc", "unique_dim", "unique_consecutive",
    "_unique", "_unique2", "_linalg_check_errors", "_linalg_eigh", "_linalg_svd", "linalg_eig", "linalg_lstsq",
})  # fmt: skip
"""Operations whose result, or its size, the host waits for."""


class Waits:
    """What was counted so far."""

    by_line: Counter[str] = Counter()
    """What made the host wait, by line of the package."""
    page_locked = WeakIdKeyDictionary()
    """Tensors on the CPU that the device can read by itself."""
    precision: Counter[str] = Counter()
    """Products, by the precision that torch was set to."""


class SimulatedTensor(Tensor):
    """A tensor on the simulated device. `held` is where its numbers are."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # pyright: ignore[reportAssignmentType]

    @staticmethod
    def __new__(cls, held: Tensor) -> "SimulatedTensor":
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            device=torch.device(NAME, 0),
        )  # fmt: skip
        made.held = held
        return made

    def __repr__(self, **_: Any) -> str:
        return f"{NAME}({self.held!r})"

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.held.untyped_storage()

    # With these two torch moves a module's parameters as it does those of any tensor made of others.
    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(parts: Mapping[str, Tensor], *_: Any) -> "SimulatedTensor":
        return SimulatedTensor(parts["held"])

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        name = op._schema.name.removeprefix("aten::")
        if name == "to":  # made of others, which torch leaves to be found out below its autograd
            return op.decompose(*args, **given)
        if name in COPIES:
            return copied(op, name, args, given)
        refuse_mixtures(name, args, given)
        if waits(name, args, given):
            note(name)
        if name in ("mm", "addmm", "bmm", "baddbmm"):
            Waits.precision[torch.get_float32_matmul_precision()] += 1
        on_cpu = {**tree_map(unwrapped, given), **({"device": torch.device("cpu")} if "device" in given else {})}
        out = op(*tree_map(unwrapped, args), **on_cpu)
        if name == "_local_scalar_dense":
            return out
        return return_and_correct_aliasing(op, args, given, tree_map(wrapped, out))


def unwrapped(value: Any) -> Any:
    return value.held if isinstance(value, SimulatedTensor) else value


def wrapped(value: Any) -> Any:
    return SimulatedTensor(value) if isinstance(value, Tensor) and not isinstance(value, SimulatedTensor) else value


def copied(op: Any, name: str, args: Any, kwargs: Mapping[str, Any]) -> Any:
    """Copy between the devices, or on one."""
    if name == "_to_copy":
        device = kwargs.get("device")
        source, to_device = args[0], device is None or torch.device(device).type == NAME
        options = {key: value for key, value in kwargs.items() if key not in ("non_blocking", "pin_memory")}
        inner = {**options, "device": torch.device("cpu")} if to_device else options
        result = op(unwrapped(source), **inner)  # a copy even where neither device nor dtype differ
        blocking = not kwargs.get("non_blocking", False)
        made = SimulatedTensor(result) if to_device else result
    else:
        source, made = (args[1], args[0]) if name == "copy_" else (args[0], args[1])
        to_device = isinstance(made, SimulatedTensor)
        unwrapped(made).copy_(unwrapped(source))
        blocking = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
    paged = to_device and source not in Waits.page_locked and source.nbytes > 2**16
    if (blocking or paged) and isinstance(source, SimulatedTensor) != to_device:
        note("copy to the device" if to_device else "copy to the CPU")
    return made


def refuse_mixtures(name: str, args: Any, kwargs: Mapping[str, Any]) -> None:
    """Raise RuntimeError, as CUDA does, for tensors of both devices or a generator of the CPU."""
    leaves = tree_leaves((args, kwargs))
    others = [t for t in leaves if isinstance(t, Tensor) and not isinstance(t, SimulatedTensor) and t.ndim]
    if others and not (name in INDEXING and isinstance(args[0], SimulatedTensor)):  # indices alone may be on the CPU
        raise RuntimeError(f"{name}: Expected all tensors to be on the same device, but found {NAME}:0 and cpu")
    if any(isinstance(leaf, torch.Generator) for leaf in leaves):
        raise RuntimeError(f"{name}: Expected a '{NAME}' device type for generator but found 'cpu'")


def waits(name: str, args: Any, kwargs: Mapping[str, Any]) -> bool:
    """Return whether the host waits for the result of an operation."""
    if name == "repeat_interleave":
        return kwargs.get("output_size") is None
    if name not in INDEXING:
        return name in SIZED_BY_VALUES
    indices = [index for index in args[1] if index is not None]
    if name.startswith(("index_put", "_index_put")) and args[2].numel() == 1 and args[2].is_cpu:
        return not all(index.dtype == torch.bool for index in indices)  # of masks and one number CUDA fills in place
    return any(index.dtype in (torch.bool, torch.uint8) or index.is_cpu for index in indices)


def note(what: str) -> None:
    """Count a wait at the line of the package that caused it."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    if frame is not None:
        Waits.by_line[f"{frame.f_code.co_filename[len(PACKAGE) + 1 :]}:{frame.f_lineno} {what}"] += 1


class _Backend(backend_registration._DummyBackendModule):
    """The module torch.sim: one device."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


def _empty(size: Any, *, dtype: Any = None, **_: Any) -> Tensor:
    return SimulatedTensor(torch.empty(size, dtype=dtype))


def _empty_strided(size: Any, stride: Any, *, dtype: Any = None, **_: Any) -> Tensor:
    return SimulatedTensor(torch.empty_strided(size, stride, dtype=dtype))


def _zeros(size: Any, *, dtype: Any = None, **_: Any) -> Tensor:
    return SimulatedTensor(torch.zeros(size, dtype=dtype))


def _pin_memory(tensor: Tensor, device: Any = None) -> Tensor:
    made = tensor.clone()
    Waits.page_locked[made] = True
    return made


def _is_pinned(tensor: Tensor, device: Any = None) -> bool:
    return tensor in Waits.page_locked


def _copy_from(source: Tensor, made: Tensor, non_blocking: bool = False) -> Tensor:
    return copied(None, "_copy_from", (source, made, non_blocking), {})


def _made_on_cpu(op: Any) -> Any:
    """Return the kernel of an operation that makes a tensor of numbers: their count is only known once made."""

    def kernel(*args: Any, **kwargs: Any) -> Tensor:
        return SimulatedTensor(op(*args, **{**kwargs, "device": torch.device("cpu"), "pin_memory": None}))

    return kernel


@cache
def install() -> torch.library.Library:
    """Register the device, once a process."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Backend())
    kernels = torch.library.Library("aten", "IMPL")
    kernels.impl("empty.memory_format", _empty, "PrivateUse1")
    kernels.impl("empty_strided", _empty_strided, "PrivateUse1")
    kernels.impl("_copy_from", _copy_from, "PrivateUse1")
    kernels.impl("_efficientzerotensor", _zeros, "PrivateUse1")
    kernels.impl("_pin_memory", _pin_memory, "CPU")
    kernels.impl("is_pinned", _is_pinned, "CPU")
    for name in ("arange", "arange.start", "arange.start_step", "eye", "eye.m", "linspace", "randperm"):
        packet, _, overload = name.partition(".")
        op = getattr(getattr(torch.ops.aten, packet), overload or "default")
        kernels.impl(name, _made_on_cpu(op), "PrivateUse1")
    return kernels


@contextmanager
def counted_waits() -> Iterator[Counter[str]]:
    """Yield a counter of what makes the host wait from now on, by line."""
    install()
    before = Waits.by_line
    Waits.by_line = Counter()
    try:
        yield Waits.by_line
    finally:
        Waits.by_line = before
