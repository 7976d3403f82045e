"""Activations that are in memory already: a tensor or array of your own.

A run folder stores what identifies them (shape, SHA-256), never the activations. To read the run in another
process, give the same array again: `Activations(x)` then equals the stored source.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from functools import cached_property, lru_cache
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid import seeding
from unbraid.config.settings import NonNegativeInt, Share
from unbraid.sources.base import Batch, Block, Contexts, Source, Split, no_downstream, passes
from unbraid.sources.in_process import Registry
from unbraid.sources.truth import Labelled, NoTruth, Truth

BLOCK_ROWS = 32_768
"""Rows of one block, the buffer that training shuffles."""
REMEMBERED = 4
"""Arrays kept for sources that are read back from a run folder: the most recent ones."""


@dataclass(frozen=True, eq=False)
class Known:
    """An array that was given in this process, and the factors given with it."""

    x: Float[Tensor, "row d_in"]
    documents: Int[Tensor, " row"]
    positions: Int[Tensor, " row"]
    factors: Float[Tensor, "row factor"] | None
    names: tuple[str, ...]
    parents: tuple[int, ...]


ARRAYS: Registry[Known] = Registry(kept=REMEMBERED)


@dataclass(frozen=True, kw_only=True)
class Activations(Source):
    """A tensor or array of activations [..., d_in] in memory.

    With two dimensions rows are independent. With more, [..., position, d_in], each index of the leading dimensions is
    a sequence, and a sequence is never split between training and held-out rows. The values are not copied unless they
    must be: do not change them in place while a dictionary is trained on them.
    """

    more_held_out: ClassVar[str] = "raise eval_share, or give more activations"

    data: InitVar[Any] = field(default=None, kw_only=False)
    """The activations, a tensor or NumPy array of finite real numbers [..., d_in]; not stored."""
    factors: InitVar[Any] = None
    """Magnitude of each known factor in each row, [..., factors] with the same leading dimensions, 0 where it is
    inactive: evals that need known factors then apply. A DataFrame's columns name the factors. Not stored."""
    names: InitVar[Sequence[str] | None] = None
    """Names of the factors; by default the DataFrame's columns, or factor-0, factor-1, … Not stored."""
    parents: InitVar[Sequence[int] | None] = None
    """Index of each factor's parent in a forest, -1 for roots; by default all are roots. Not stored."""
    eval_share: Share = 0.1
    """Share of the rows (of the sequences, where there are any) held out for scoring."""
    epochs: NonNegativeInt = 0
    """Passes over the training rows, each in another order; 0: as many as training asks for."""
    rows: NonNegativeInt = 0
    """Number of rows; found from `data`."""
    width: NonNegativeInt = 0
    """Dimensions of a row, d_in; found from `data`."""
    digest: str = ""
    """SHA-256 of the activations and factors; found from `data`."""

    def __post_init__(self, data: Any, factors: Any, names: Any, parents: Any) -> None:
        if data is None:
            if not (self.rows and self.width and self.digest):
                raise ValueError("Activations needs the activations themselves: Activations(x), x [..., d_in]")
            return
        known = as_known(data, factors, names, parents)
        found = {"rows": known.x.shape[0], "width": known.x.shape[1], "digest": digest_of(known)}
        for name, value in found.items():
            if getattr(self, name) not in (0, "", value):
                raise ValueError(
                    f"Activations.{name} is {getattr(self, name)}, but the given array has {value}; leave it out: "
                    "it is found from the data"
                )
            object.__setattr__(self, name, value)
        ARRAYS.add(self.digest, known)
        object.__setattr__(self, "_given", known)

    @property
    def known(self) -> Known:
        """The array behind these settings. Raises ValueError when it was not given in this process."""
        given = getattr(self, "_given", None) or ARRAYS.find(self.digest)
        if given is None:
            raise ValueError(
                f"these activations ({self.rows:,} rows of {self.width}, SHA-256 {self.digest[:12]}…) were in the "
                "memory of the process that trained on them; give the same array again: unbraid.Activations(x)"
            )
        return given

    @property
    def d_in(self) -> int:
        return self.width

    @property
    def has_documents(self) -> bool:
        documents = self.known.documents
        return len(documents) > 1 and bool((documents[1:] == documents[:-1]).any())

    def block(self, index: int, *, split: Split, seed: int) -> Block | None:
        own = self._rows[split]
        per_epoch = math.ceil(len(own) / BLOCK_ROWS)
        if not per_epoch:
            return None
        epoch, place = divmod(index, per_epoch)
        if epoch >= (passes(self.epochs, split) or math.inf):
            return None
        if split == "train":
            own = own[order_of(len(own), seed, epoch)]
        chosen = own[place * BLOCK_ROWS : (place + 1) * BLOCK_ROWS]
        known = self.known
        tokens = torch.full((len(chosen),), -1)
        return Block(Batch(known.x[chosen].float(), tokens, known.documents[chosen], known.positions[chosen]))

    def contexts(self, count: int, *, split: Split, seed: int) -> Contexts:
        raise no_downstream("an array of activations")

    def available(self, split: Split) -> float:
        number = passes(self.epochs, split)
        return float(len(self._rows[split]) * number) if number else (math.inf if len(self._rows[split]) else 0.0)

    def metadata(self) -> Mapping[str, str | int | bool]:
        return {"model_name": "activations", "hook_name": "activations", "dataset_path": f"sha256:{self.digest}"}

    def sample_text(self, count: int) -> list[str]:
        return []

    def truth(self) -> Truth:
        if self.known.factors is None:
            raise NoTruth("no factors were given with these activations; give them: Activations(x, factors=f)")
        return self._truth

    @cached_property
    def _truth(self) -> "ArrayTruth":
        """One object, so that what is found out about it is found once."""
        return ArrayTruth(self.known, self._rows)

    @cached_property
    def _rows(self) -> dict[Split, Int[Tensor, " row"]]:
        """Row numbers of each split: whole documents, drawn by the digest, so equal settings mean equal splits."""
        documents = self.known.documents
        count = int(documents[-1]) + 1
        held_out = round(count * self.eval_share)
        order = torch.randperm(count, generator=seeding.stream(0, f"split/{self.digest}"))
        out = torch.zeros(count, dtype=torch.bool)
        out[order[:held_out]] = True
        chosen = out[documents]
        return {"train": (~chosen).nonzero().squeeze(1), "eval": chosen.nonzero().squeeze(1)}


@dataclass(frozen=True, eq=False)
class ArrayTruth(Truth):
    """The truth of factors that were given row by row; their directions are not known."""

    known: Known
    splits: Mapping[Split, Int[Tensor, " row"]]

    @property
    def names(self) -> Sequence[str]:
        return self.known.names

    @property
    def parents(self) -> Int[Tensor, " factors"]:
        return torch.tensor(self.known.parents, dtype=torch.long)

    @property
    def directions(self) -> None:
        return None

    def labelled(self, count: int, *, split: Literal["train", "eval"], seed: int = 0) -> Labelled:
        own = self.splits[split]
        order = torch.randperm(len(own), generator=seeding.stream(seed, f"labelled/{split}"))
        chosen = own[order[:count].sort().values]
        factors = self.known.factors
        assert factors is not None
        values = factors[chosen]
        rows, which = values.nonzero(as_tuple=True)
        return Labelled(self.known.x[chosen].float(), rows, which, values[rows, which], values.shape[1])


@lru_cache(maxsize=2)
def order_of(count: int, seed: int, epoch: int) -> Int[Tensor, " row"]:
    """Return the order of the training rows in one pass."""
    return torch.randperm(count, generator=seeding.stream(seed, f"rows/{epoch}"))


def as_known(data: Any, factors: Any, names: Any, parents: Any) -> Known:
    """Return rows [row, d_in], the sequence and position of each, and its factors.

    Raises ValueError for data that cannot be activations, factors, names or parents.
    """
    x = real("activations", data)
    if x.ndim < 2 or not x.numel():
        raise ValueError(f"activations are {list(x.shape)}; they must be [..., d_in], with two dimensions or more")
    if x.ndim == 2:
        documents, positions = torch.arange(x.shape[0]), torch.zeros(x.shape[0], dtype=torch.long)
    else:
        length = x.shape[-2]
        number = torch.arange(math.prod(x.shape[:-1]))
        documents, positions = number // length, number % length
    given = None if factors is None else real("factors", factors)
    if given is not None and given.shape[:-1] != x.shape[:-1]:
        raise ValueError(
            f"factors are {list(given.shape)} and activations {list(x.shape)}; all but the last dimension must be equal"
        )
    count = 0 if given is None else given.shape[-1]
    labels = named(names, factors, count)
    above = checked_parents(parents, count)
    rows = x.reshape(-1, x.shape[-1])
    return Known(rows, documents, positions, None if given is None else given.reshape(-1, count), labels, above)


def real(what: str, data: Any) -> Tensor:
    """Return `data` as a CPU tensor of finite real numbers, sharing memory where it can.

    Raises ValueError for anything else; the error names the data by `what`.
    """
    if hasattr(data, "to_numpy"):
        data = data.to_numpy()
    if isinstance(data, np.ndarray):
        if data.dtype.kind not in "fiub":
            raise ValueError(f"{what} are an array of {data.dtype}; expected real numbers")
        # torch warns of arrays that cannot be written to, and takes no foreign byte order and no negative stride.
        usual = data.dtype == np.float32 and data.flags.writeable and data.flags.c_contiguous
        data = torch.from_numpy(data if usual else np.array(data, dtype=np.float32, order="C"))
    if not isinstance(data, Tensor):
        raise ValueError(
            f"{what} are a {type(data).__name__}; expected a tensor or NumPy array; numpy.asarray(…) makes one"
        )
    if data.is_complex() or data.layout != torch.strided:
        raise ValueError(f"{what} are {data.dtype} ({data.layout}); expected a dense tensor of real numbers")
    data = data.detach().cpu()
    data = data if data.is_floating_point() else data.float()
    if not bool(torch.isfinite(data).all()):
        bad = int((~torch.isfinite(data)).sum())
        raise ValueError(f"{bad:,} of {data.numel():,} numbers in the {what} are NaN or infinite; remove those rows")
    return data


def named(names: Any, factors: Any, count: int) -> tuple[str, ...]:
    """Return the names of the factors: those given, a DataFrame's columns, or factor-0, factor-1 and so on.

    Raises ValueError unless each factor has one name and no two have the same.
    """
    columns = getattr(factors, "columns", None) if names is None else names
    if columns is None:
        return tuple(f"factor-{index}" for index in range(count))
    if isinstance(columns, str):
        raise ValueError(f"names are {columns!r}; expected a list of text, one for each of the {count} factors")
    found = tuple(str(name) for name in columns)
    if len(found) != count or len(set(found)) != count:
        raise ValueError(f"there are {len(set(found))} different names for {count} factors; give one each")
    return found


def checked_parents(parents: Sequence[int] | None, count: int) -> tuple[int, ...]:
    """Return the parents of the factors. Raises ValueError unless they form a forest."""
    if parents is None:
        return (-1,) * count
    found = tuple(int(parent) for parent in parents)
    if len(found) != count or any(not -1 <= parent < count for parent in found):
        raise ValueError(f"parents must be {count} numbers from -1 (a root) to {count - 1}; got {found!r:.80}")
    for start in range(count):
        seen, at = set[int](), start
        while at >= 0:
            if at in seen:
                raise ValueError(f"factor {start} is its own ancestor; parents must form a forest")
            seen.add(at)
            at = found[at]
    return found


def digest_of(known: Known) -> str:
    """Return the SHA-256 of shapes, types and values."""
    state = hashlib.sha256()
    for tensor in (known.x, known.documents, known.factors):
        if tensor is not None:
            state.update(f"{list(tensor.shape)} {tensor.dtype}".encode())
            # NumPy has no bfloat16: its bytes are read as they are.
            state.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    state.update(repr((known.names, known.parents)).encode())
    return state.hexdigest()
