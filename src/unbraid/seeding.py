"""Named random streams: every consumer of randomness names its stream, so no two ever share one.

A world and an encoder that both drew from seed 0 once made an untrained dictionary "recover" every factor,
because both drew the same normals. Hashing the name into the seed makes that impossible.
"""

import hashlib

import torch


def integer(seed: int, name: str) -> int:
    """The 63-bit seed of stream `name` under `seed`."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def stream(seed: int, name: str, device: str | torch.device = "cpu") -> torch.Generator:
    """A fresh generator for stream `name` under `seed`; the same arguments give the same numbers."""
    generator = torch.Generator(device=device)
    generator.manual_seed(integer(seed, name))
    return generator
