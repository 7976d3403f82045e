"""Devices that torch sees on this machine; an experiment may name one of another machine."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def queued(device: str | torch.device) -> bool:
    """Return whether a device works off a queue that the host should not wait for at every step. Apple's does, too, but
    lacks some of what that takes."""
    return torch.device(device).type not in ("cpu", "mps")


def sent(tensor: Tensor, device: str | torch.device) -> Tensor:
    """Return a tensor on a device. To a queued one it goes through page-locked memory, so that the host does not wait
    and can read what comes next while the device is at work. To Apple's the host waits: there torch may read a tensor
    that has been freed (pytorch#189690)."""
    if tensor.is_cpu and queued(device):
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


@contextmanager
def rounded_products(device: str | torch.device) -> Iterator[None]:
    """Let products of float32 round their factors to TF32, of 10 bits, inside this context; on the CPU nothing is
    rounded."""
    before = torch.get_float32_matmul_precision()
    if queued(device):
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        if queued(device):
            torch.set_float32_matmul_precision(before)


def check_device(device: str, flag: str) -> None:
    """Raise ValueError for a device that torch does not see here. `flag`: what to set instead, for the message."""
    kind, _, index = device.partition(":")
    count = device_count(kind)
    if not count:
        raise ValueError(f"{flag} {device}: torch sees no {kind.upper()} device here; use {flag} cpu")
    if index and int(index) >= count:
        raise ValueError(f"{flag} {device}: there are {count} here, {kind}:0 to {kind}:{count - 1}; name one, or cpu")


def device_count(kind: str) -> int:
    """Return the number of devices of a kind; besides the CPU, CUDA's and Apple's, an extension of torch may have
    registered one (`torch.utils.rename_privateuse1_backend`)."""
    if kind in ("cpu", "mps"):
        return int(kind == "cpu" or torch.backends.mps.is_available())
    module = getattr(torch, kind, None)
    return module.device_count() if module is not None else 0
