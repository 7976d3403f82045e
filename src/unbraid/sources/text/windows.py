"""Windows of tokens: text as a model reads it.

A window holds tokens of one document, never of two, with BOS in front where the tokenizer has one.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from unbraid import seeding
from unbraid.sources.text.documents import Document
from unbraid.sources.text.tokens import Ids, encode

UNKNOWN_SHARE = 0.3
HARDLY_SHORTER = 0.8
"""Share of the longest window's length from which another is read together with it."""


@dataclass(frozen=True)
class Windows:
    """Windows of tokens, one document each, padded on the right to the longest."""

    ids: Int[Tensor, "seq pos"]
    attention: Bool[Tensor, "seq pos"]
    """True on what the model reads, BOS included; False on padding."""
    keep: Bool[Tensor, "seq pos"]
    """True where the token policy keeps the token: no padding, no special tokens."""
    documents: Int[Tensor, " seq"]

    def __len__(self) -> int:
        return self.ids.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> "Windows":
        return Windows(self.ids[rows], self.attention[rows], self.keep[rows], self.documents[rows])

    def parts(self, size: int) -> Iterator["Windows"]:
        """Yield a few windows at a time."""
        return (self[start : start + size] for start in range(0, len(self), size))

    def by_length(self, positions: int) -> Iterator[tuple[Int[Tensor, " some"], "Windows"]]:
        """Yield all windows, the longest first, without the padding that they have in common; and which they are.
        Each time as many as hold this many positions, one at least, and as are hardly shorter than the longest;
        `positions` 0: as many as are hardly shorter."""
        lengths = self.attention.sum(1)
        order = lengths.argsort(descending=True, stable=True)
        start = 0
        while start < len(order):
            longest = int(lengths[order[start]])
            alike = int((lengths[order[start:]] >= HARDLY_SHORTER * longest).sum())
            most = max(1, positions // max(1, longest)) if positions else alike
            which = order[start : start + min(alike, most)]
            start += len(which)
            yield which, self[which].shortened(longest)

    def shortened(self, length: int) -> "Windows":
        """Return windows without what comes after their first `length` tokens."""
        return Windows(self.ids[:, :length], self.attention[:, :length], self.keep[:, :length], self.documents)

    def corrupted(self, share: float, rng: torch.Generator) -> "Windows":
        """Return windows in which this share of the kept tokens is replaced by others of the same windows."""
        ids, kept = self.ids.cpu(), self.keep.cpu()
        pool = ids[kept]
        drawn = pool[torch.randint(len(pool), ids.shape, generator=rng)]
        chosen = (torch.rand(ids.shape, generator=rng) < share) & kept
        return replace(self, ids=torch.where(chosen, drawn, ids).to(self.ids.device))

    def repeated(self, copies: int) -> "Windows":
        """Return all windows this many times, one copy of all after the other."""
        columns = (self.ids, self.attention, self.keep, self.documents)
        return Windows(*(column.repeat(copies, *(1 for _ in column.shape[1:])) for column in columns))

    def to(self, device: str | torch.device) -> "Windows":
        return Windows(*(t.to(device) for t in (self.ids, self.attention, self.keep, self.documents)))


@dataclass(frozen=True, eq=False, kw_only=True)
class Reader:
    """The way a model reads text: its tokenizer and the token policy."""

    tokenizer: Any
    context: int
    """Tokens in a window, BOS included."""
    bos: int | None
    """The token in front of every window; None for none."""
    mask_special: bool
    vocabulary: int
    """Rows of the model's embedding."""
    positions: int
    """Longest sequence the model can read."""

    def __post_init__(self) -> None:
        # A tokenizer may have more ids than are embedded (Gemma 3 of text alone): those of the text are checked.
        if self.bos is not None and self.bos >= self.vocabulary:
            raise ValueError(
                f"bos is token {self.bos:,}, but the model embeds {self.vocabulary:,}; name another, or never"
            )
        if self.context > self.positions:
            raise ValueError(f"context {self.context} exceeds the model's {self.positions} positions; lower it")

    @cached_property
    def size(self) -> int:
        """The number of ids that the tokenizer can give."""
        return len(self.tokenizer)

    @cached_property
    def special(self) -> list[int]:
        """The ids of tokens that are no text, such as BOS, EOS, unknown and chat markers."""
        added = {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        return sorted(added | set(self.tokenizer.all_special_ids) | ({self.bos} if self.bos is not None else set()))

    @cached_property
    def padding(self) -> int:
        """The id that windows are padded with; masked, but embedded."""
        return next(i for i in (self.tokenizer.pad_token_id, *self.special, 0) if i is not None and i < self.vocabulary)

    @property
    def start(self) -> int:
        """The token a document begins after: BOS, or EOS for tokenizers that have no BOS."""
        for token in (self.bos, self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return token
        raise ValueError("the tokenizer has neither BOS nor EOS to start sampling from; give text instead of sample://")

    @property
    def chunk(self) -> int:
        """The number of tokens of text in a full window."""
        return self.context - self.prepend_bos

    @property
    def keeps_bos(self) -> bool:
        """Return whether the BOS in front of every window is a row too."""
        return self.prepend_bos and not self.mask_special

    @property
    def prepend_bos(self) -> bool:
        return self.bos is not None

    def kept(self, ids: Int[Tensor, "*shape"]) -> Bool[Tensor, "*shape"]:
        if not self.mask_special:
            return torch.ones_like(ids, dtype=torch.bool)
        return ~torch.isin(ids, torch.tensor(self.special, dtype=ids.dtype, device=ids.device))

    def is_bos(self, tokens: Int[Tensor, " token"], places: Int[Tensor, " place"]) -> Bool[Tensor, " place"]:
        """Return a mask of the places whose token is the one that windows begin with."""
        if self.bos is None or not len(tokens):
            return torch.zeros_like(places, dtype=torch.bool)
        return tokens[places.clamp(max=len(tokens) - 1)] == self.bos

    def decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=False)

    def whole(self, documents: Sequence[Sequence[str] | Sequence[int]]) -> Windows:
        """Return windows of whole documents, each given as its tokens or their ids.

        Raises ValueError for one that does not fit into a window.
        """
        ids = [
            torch.tensor(self.tokenizer.convert_tokens_to_ids(list(d)) if isinstance(d[0], str) else d)
            for d in documents
        ]
        self.check(torch.cat(ids).int())
        packed = Packed.of(list(enumerate(ids)), self)
        if len(packed) != len(documents):
            raise ValueError(f"a document is longer than context {self.context}; raise --source.context")
        return packed.windows(torch.arange(len(packed)))

    def tokenise(self, documents: Sequence[Document]) -> list[Int[Tensor, " token"]]:
        """Return the ids of each document, without special tokens.

        Raises ValueError when text and tokenizer do not match.
        """
        found = encode(self.tokenizer, documents)
        self.check(found.flat)
        return found.each()

    def check(self, ids: Int[Tensor, " token"]) -> None:
        """Raise ValueError for ids of text that does not belong to this tokenizer and model."""
        if ids.numel() and int(ids.max()) >= self.vocabulary:
            raise ValueError(
                f"the tokenizer gave id {int(ids.max()):,} but the model embeds {self.vocabulary:,} tokens; "
                "they do not belong together: use the model's own tokenizer"
            )
        unknown = self.tokenizer.unk_token_id
        share = float((ids == unknown).float().mean()) if ids.numel() and unknown is not None else 0.0
        if share > UNKNOWN_SHARE:
            raise ValueError(
                f"{share:.0%} of the text is unknown to the tokenizer, so the model would read noise; "
                "give text in the language and script the model was trained on"
            )


@dataclass(frozen=True, eq=False)
class Packed:
    """Documents laid end to end, and the table of windows over them. Windows that keep no token are left out."""

    reader: Reader
    tokens: Int[Tensor, " token"]
    start: Int[Tensor, " window"]
    length: Int[Tensor, " window"]
    kept: Int[Tensor, " window"]
    """Tokens of each window that the policy keeps."""
    document: Int[Tensor, " window"]
    first: Int[Tensor, " document"]
    """First window of each document."""
    count: Int[Tensor, " document"]
    """Windows of each document."""

    @cached_property
    def total(self) -> int:
        return int(self.kept.sum())

    @cached_property
    def predicting(self) -> int:
        """The number of windows with a kept token and another after it."""
        ids = self.reader.kept(self.tokens)
        running = torch.cat([torch.zeros(1, dtype=torch.long), ids.cumsum(0)])
        before_last = running[self.start + self.length - 1] - running[self.start] + self.reader.keeps_bos
        return int((before_last > 0).sum())

    def __len__(self) -> int:
        return self.start.shape[0]

    @staticmethod
    def of(found: Sequence[tuple[int, Tensor]], reader: Reader) -> "Packed":
        """Pack (document, ids) pairs."""
        tokens = torch.cat([torch.empty(0, dtype=torch.int32), *(ids for _, ids in found)])
        index = torch.tensor([document for document, _ in found], dtype=torch.long)
        lengths = torch.tensor([len(ids) for _, ids in found], dtype=torch.long)
        return Packed.laid(Ids(tokens, lengths), index, reader)

    @staticmethod
    def laid(ids: Ids, index: Int[Tensor, " document"], reader: Reader) -> "Packed":
        """Pack documents laid end to end; `index` says which each is.

        A BOS in the text itself at the start of a document or a window (chat templates write one) is left out: the
        window already begins with one.
        """
        tokens, lengths, begin = ids.flat, ids.lengths, _before(ids.lengths)
        leads = reader.is_bos(tokens, begin) & (lengths > 0)
        begin, lengths = begin + leads, lengths - leads.long()
        windows = (lengths + reader.chunk - 1) // reader.chunk
        rank = torch.repeat_interleave(windows)
        offset = (torch.arange(len(rank)) - _before(windows)[rank]) * reader.chunk
        start = begin[rank] + offset
        length = (lengths[rank] - offset).clamp(max=reader.chunk)
        leads = reader.is_bos(tokens, start)
        start, length = start + leads, length - leads.long()
        running = torch.cat([torch.zeros(1, dtype=torch.long), reader.kept(tokens).cumsum(0)])
        kept = running[start + length] - running[start] + reader.keeps_bos
        full = (kept > 0) & (length > 0)
        count = torch.bincount(rank[full], minlength=len(index))
        return Packed(reader, tokens, start[full], length[full], kept[full], index[rank][full], _before(count), count)

    def windows(self, which: Int[Tensor, " seq"]) -> Windows:
        """Return these windows, padded on the right to the longest of them."""
        start, length = self.start[which, None], self.length[which, None]
        places = torch.arange(int(length.max()))
        inside = places < length
        ids = (
            self.tokens[(start + places).clamp(max=len(self.tokens) - 1)]
            .long()
            .masked_fill(~inside, self.reader.padding)
        )
        if self.reader.bos is not None:
            ids = torch.cat([torch.full((len(ids), 1), self.reader.bos), ids], 1)
            inside = torch.cat([torch.ones_like(inside[:, :1]), inside], 1)
        return Windows(ids, inside, inside & self.reader.kept(ids), self.document[which])

    def block(self, index: int, *, seed: int, size: int, epochs: int) -> Int[Tensor, " window"] | None:
        """Return the windows of block `index` in the order of `seed`; None past the end.

        Their first kept tokens are numbers index * size to (index + 1) * size.
        """
        low, high = index * size, (index + 1) * size
        parts = []
        for epoch in range(low // max(self.total, 1), min(epochs, math.ceil(high / max(self.total, 1)))):
            order, starts = self._order(epoch, seed)
            parts.append(order[(starts >= low) & (starts < high)])
        found = torch.cat(parts) if parts else torch.empty(0, dtype=torch.long)
        return found if len(found) else None

    def _order(self, epoch: int, seed: int) -> tuple[Int[Tensor, " window"], Int[Tensor, " window"]]:
        """Return all windows, by document, in the order of this epoch, and the number of each one's first token."""
        if (epoch, seed) not in self._orders:
            documents = torch.randperm(len(self.first), generator=seeding.stream(seed, f"documents/{epoch}"))
            count = self.count[documents]
            skip = self.first[documents] - _before(count)
            order = torch.repeat_interleave(skip, count) + torch.arange(len(self))
            self._orders.clear()  # one epoch is read at a time
            self._orders[epoch, seed] = order, epoch * self.total + _before(self.kept[order])
        return self._orders[epoch, seed]

    @cached_property
    def _orders(self) -> dict[tuple[int, int], tuple[Tensor, Tensor]]:
        return {}


def _before(counts: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Return the sum of all counts before each."""
    return counts.cumsum(0) - counts
