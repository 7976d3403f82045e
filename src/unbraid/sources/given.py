"""The conversion of what a user gives (an array, a source, batches) into a source of activations."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unbraid.config.settings import shown
from unbraid.sources.base import Source
from unbraid.sources.tensor import Activations, real


def as_source(data: Any, tokens: int) -> Source:
    """Return a source of the activations in `data`.

    `data` is a source, returned as it is; a tensor, array or DataFrame [..., d_in]; or an iterable of batches, read
    until there are enough to train on `tokens` rows. Raises ValueError for anything else, saying what to give.
    """
    if isinstance(data, Source):
        return data
    if isinstance(data, type) and issubclass(data, Source):
        raise ValueError(f"{data.__name__} is a class of sources; give one of them: {data.__name__}(…)")
    if isinstance(data, str | Path):
        raise ValueError(
            f"the activations are {shown(str(data))}, which is text; give an array, or a source: "
            "unbraid.LanguageModel(model=…, layer=…), or unbraid.Cached(folder=…) for activations on disk"
        )
    if isinstance(data, Tensor | np.ndarray) or hasattr(data, "to_numpy"):
        return Activations(data)
    if isinstance(data, Iterable) and not isinstance(data, Mapping):
        return Activations(collected(data, tokens))
    raise ValueError(
        f"the activations are a {type(data).__name__}; expected a tensor or array [..., d_in], a source, or an "
        "iterable of batches of activations"
    )


def collected(batches: Iterable[Any], tokens: int) -> Tensor:
    """Read batches of activations [..., d_in] into one tensor [row, d_in] in memory.

    It reads as many rows as training takes, and enough more to hold out a tenth. Raises ValueError for a batch that
    holds no activations, or of another width than the first.
    """
    wanted, rows, parts = tokens + tokens // 9, 0, list[Tensor]()
    for number, batch in enumerate(batches):
        part = as_rows(batch, number)
        if parts and part.shape[-1] != parts[0].shape[-1]:
            raise ValueError(
                f"batch {number} has {part.shape[-1]} dimensions, the first {parts[0].shape[-1]}; give activations of "
                "one site"
            )
        parts.append(part.clone())  # a loader may fill one buffer again and again
        rows += len(part)
        if rows >= wanted:
            break
    if not parts:
        raise ValueError("the iterable gave no batch; a generator that was read before is empty: make it anew")
    return torch.cat(parts)[:wanted]


def as_rows(batch: Any, number: int) -> Tensor:
    """Return one batch as rows [row, d_in] on the CPU.

    A tuple or list of one tensor, as a DataLoader of a TensorDataset gives, counts as that tensor. Raises ValueError
    for anything but finite real numbers of two dimensions or more; `number` is the batch's place, for the error.
    """
    alone = batch[0] if isinstance(batch, tuple | list) and len(batch) == 1 else batch
    if not isinstance(alone, Tensor | np.ndarray):
        raise ValueError(
            f"batch {number} is a {type(alone).__name__}; expected a tensor or array of activations [..., d_in], as of "
            "(batch['activations'] for batch in loader)"
        )
    rows = real(f"activations of batch {number}", alone)
    if rows.ndim < 2:
        raise ValueError(f"batch {number} is {list(rows.shape)}; expected activations [..., d_in]")
    return rows.reshape(-1, rows.shape[-1])
