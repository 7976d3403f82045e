"""Corpora: random access to blocks of windows.

Documents belong to the train or the eval split by a hash of their text, so copies of a document are in the same split.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import torch
from jaxtyping import Int
from torch import Tensor

from unbraid.sources.base import Split, passes
from unbraid.sources.text.cutting import PARAGRAPHS, shorter
from unbraid.sources.text.documents import Document
from unbraid.sources.text.tokens import FEW, Tokenised, digest, tokenise_all, warn_if_spelt
from unbraid.sources.text.windows import Packed, Reader

STREAM_POOL = 4
"""Blocks at the head of a streamed corpus that whole windows are drawn from."""


class Corpus(ABC):
    """Text as a model reads it, in blocks of windows."""

    @abstractmethod
    def block(self, index: int, *, split: Split, seed: int) -> tuple[Packed, Int[Tensor, " window"]] | None:
        """Return the windows of block `index`; None past the end."""

    @abstractmethod
    def pool(self, split: Split) -> Packed:
        """Return the windows that whole sequences are drawn from."""

    @abstractmethod
    def available(self, split: Split) -> float:
        """Return the number of kept tokens; each counts once for every epoch."""

    @abstractmethod
    def window_count(self, split: Split) -> float:
        """Return the number of windows in which a next token can be predicted; `inf` where it is not known yet."""


def split_of(document: Document, eval_share: float) -> Split:
    """Return the split that a document belongs to, by its content alone."""
    return "eval" if digest(document) < eval_share * 2**64 else "train"


def packed_splits(found: Tokenised, reader: Reader) -> dict[Split, Packed]:
    """Return both splits of a corpus. Raises ValueError when text and tokenizer do not match."""
    reader.check(found.ids.flat)
    chosen: dict[Split, Tensor] = {"train": ~found.held, "eval": found.held}
    return {split: Packed.laid(found.of(rows), rows.nonzero()[:, 0], reader) for split, rows in chosen.items()}


class Local(Corpus):
    """A corpus held in memory as token ids."""

    def __init__(
        self, documents: Callable[[], Iterable[Document]], reader: Reader, *, eval_share: float, size: int, epochs: int
    ):
        self.size, self.epochs = size, epochs
        found = tokenise_all(documents(), reader.tokenizer, eval_share)
        self.packed = packed_splits(found, reader)
        short = any(packed.total < reader.chunk for packed in self.packed.values())
        if eval_share and short and found.longest >= 2 * PARAGRAPHS:  # one book, say: its parts can stand apart
            found = tokenise_all(shorter(documents()), reader.tokenizer, eval_share)
            self.packed = packed_splits(found, reader)
        if not self.packed["train"].total:
            alike = f", {found.different} of them different," if found.different < min(FEW, len(found.held)) else ""
            raise ValueError(
                f"the corpus is too short: none of its {len(found.held)} documents{alike} leaves a token to train on "
                f"(eval_share {eval_share}); give more text, or hold none back with --source.eval-share 0"
            )
        warn_if_spelt(reader.tokenizer, found.ids.flat, found.characters)

    def block(self, index: int, *, split: Split, seed: int) -> tuple[Packed, Int[Tensor, " window"]] | None:
        packed = self.packed[split]
        which = packed.block(index, seed=seed, size=self.size, epochs=passes(self.epochs, split))
        return None if which is None else (packed, which)

    def pool(self, split: Split) -> Packed:
        return self.packed[split]

    def available(self, split: Split) -> float:
        return float(self.packed[split].total * passes(self.epochs, split))

    def window_count(self, split: Split) -> float:
        return float(self.packed[split].predicting)


class Streamed(Corpus):
    """A corpus read in the order it arrives. Going back means streaming again from the start."""

    def __init__(
        self, open_: Callable[[], Iterator[Document]], reader: Reader, *, eval_share: float, size: int, epochs: int
    ):
        self.open, self.reader, self.eval_share, self.size, self.epochs = open_, reader, eval_share, size, epochs
        self._at: dict[Split, tuple[int, Packed | None, Iterator[Packed]]] = {}
        self._pools: dict[Split, Packed] = {}
        self._looked = False

    def block(self, index: int, *, split: Split, seed: int) -> tuple[Packed, Int[Tensor, " window"]] | None:
        at, packed, rest = self._at.get(split, (-1, None, self._blocks(split)))
        if index < at:
            at, packed, rest = -1, None, self._blocks(split)
        while at < index:
            at, packed = at + 1, next(rest, None)
        self._at[split] = (at, packed, rest)
        return None if packed is None else (packed, torch.arange(len(packed)))

    def pool(self, split: Split) -> Packed:
        if split not in self._pools:
            head = islice(self._windows(split), STREAM_POOL * self.size // self.reader.chunk)
            self._pools[split] = Packed.of(list(head), self.reader)
        return self._pools[split]

    def available(self, split: Split) -> float:
        return math.inf

    def window_count(self, split: Split) -> float:
        return math.inf

    def _blocks(self, split: Split) -> Iterator[Packed]:
        pending: list[tuple[int, Tensor]] = []
        kept = 0
        for window in (w for _ in range(passes(self.epochs, split)) for w in self._windows(split)):
            pending.append(window)
            kept += int(self.reader.kept(window[1]).sum()) + self.reader.keeps_bos
            if kept >= self.size:
                yield Packed.of(pending, self.reader)
                pending, kept = [], 0
        if kept:
            yield Packed.of(pending, self.reader)

    def _windows(self, split: Split) -> Iterator[tuple[int, Tensor]]:
        """Yield (document, ids) of every window of one pass, in stream order."""
        numbered = ((i, d) for i, d in enumerate(self.open()) if split_of(d, self.eval_share) == split)
        while batch := list(islice(numbered, 64)):
            texts = [document for _, document in batch]
            tokenised = self.reader.tokenise(texts)
            if not self._looked:
                self._looked = True
                characters = sum(len(document) for document in texts if isinstance(document, str))
                warn_if_spelt(self.reader.tokenizer, torch.cat(tokenised), characters)
            for (index, _), ids in zip(batch, tokenised, strict=True):
                own = ids[1:] if len(ids) and int(ids[0]) == self.reader.bos else ids
                yield from ((index, part) for part in own.split(self.reader.chunk) if len(part))
