"""Kernels that take the place of torch's operations in the sparse step.

sums      out[bag] = sum over its items of weight * vectors[item]: decoding, and the gradients of weights
products  out[n] = left[bag] . right[item n]: the gradients of values
largest   the k largest of every row
"""

import importlib.util
import os
from abc import ABC, abstractmethod
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor

KernelsName = Literal["torch", "triton"]


class Kernels(ABC):
    """Base of the kernels that the sparse step computes with, in place of torch's operations.

    Bags of items follow one another, and begin at `bag_starts`.
    """

    @abstractmethod
    def sums(
        self,
        items: Int[Tensor, " nnz"],
        vectors: Float[Tensor, "item d_in"],
        bag_starts: Int[Tensor, " bag"],
        weights: Float[Tensor, " nnz"],
    ) -> Float[Tensor, "bag d_in"]:
        """Return, for each bag, the sum over its items of weight * vectors[item]."""

    @abstractmethod
    def products(
        self,
        left: Float[Tensor, "bag d_in"],
        right: Float[Tensor, "item d_in"],
        items: Int[Tensor, " nnz"],
        bag_starts: Int[Tensor, " bag"],
    ) -> Float[Tensor, " nnz"]:
        """Return left[bag] . right[item] for every item of every bag."""

    @abstractmethod
    def largest_in_rows(
        self, pre: Float[Tensor, "rows d_sae"], k: int
    ) -> tuple[Float[Tensor, "rows k"], Int[Tensor, "rows k"]]:
        """Return values and latents of the k largest of each row, latents ascending."""


def kernels_named(name: KernelsName, device: str) -> Kernels | None:
    """Return the kernels of this name for a device; None for torch's own operations. Raises ValueError where they
    cannot run."""
    if name == "torch":
        return None
    if importlib.util.find_spec("triton") is None:
        raise ValueError(
            "training.kernels is triton, and the package triton is not installed; pip install triton, or leave "
            "--training.kernels out"
        )
    if not device.startswith("cuda") and os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError(
            f"training.kernels is triton, whose kernels run on cuda, and training.device is {device}; train on cuda, "
            "or leave --training.kernels out (with TRITON_INTERPRET=1 its interpreter runs them anywhere, slowly)"
        )
    # Not before: the package is large, and reads TRITON_INTERPRET when kernels are defined.
    from unbraid.dictionary.triton_kernels import TritonKernels

    return TritonKernels()
