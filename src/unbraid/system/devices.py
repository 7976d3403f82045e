"""Devices that torch sees on this machine; an experiment may name one of another machine."""

import torch


def check_device(device: str, flag: str) -> None:
    """Raise ValueError for a device that torch does not see here. `flag`: what to set instead, for the message."""
    kind, _, index = device.partition(":")
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}[kind]
    if not count:
        raise ValueError(f"{flag} {device}: torch sees no {kind.upper()} device here; use {flag} cpu")
    if index and int(index) >= count:
        raise ValueError(f"{flag} {device}: there are {count} here, {kind}:0 to {kind}:{count - 1}; name one, or cpu")
