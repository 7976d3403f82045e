"""Text as a model reads it: windows of tokens.

A window holds tokens of one document, never of two, with BOS in front where the tokenizer has one. Documents belong to
the train or the eval split by a hash of their text, so copies of a document never land on both sides.
"""

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from unbraid import seeding
from unbraid.files import write_text
from unbraid.source import Split, passes
from unbraid.text_cutting import PARAGRAPHS, shorter
from unbraid.text_cutting import merge_paragraphs as merge_paragraphs
from unbraid.text_documents import Document, count_and_seed
from unbraid.text_documents import documents as documents
from unbraid.text_documents import is_language as is_language
from unbraid.text_documents import is_sample as is_sample
from unbraid.text_documents import is_stream as is_stream
from unbraid.text_documents import stream as stream
from unbraid.text_tokens import FEW, Ids, Tokenised, digest, encode, tokenise_all, warn_if_spelt

SAMPLE_TOKENS = 512
"""Tokens of a sampled document at most (fewer where the model has fewer positions)."""
STREAM_POOL = 4
"""Blocks at the head of a streamed corpus that whole windows are drawn from."""
UNKNOWN_SHARE = 0.3


# ---- documents sampled from the model ----------------------------------------------------------------------


def sampled(text: str, model: nn.Module, reader: "Reader", *, batch: int, cache: Path) -> list[str]:
    """`sample://count[?seed=n]`: documents the model writes at temperature 1, kept in `cache` for the next time."""
    count, seed = count_and_seed(text, "sample")
    length = min(SAMPLE_TOKENS, reader.positions)
    key = f"{count}/{seed}/{length}/{batch}/{reader.start}/{_digest(model)}"
    path = cache / f"sample-{count}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.jsonl"
    if not path.exists():
        found = list(islice(_samples(model, reader, batch=batch, length=length, seed=seed), count))
        lines = "".join(json.dumps({"text": document}) + "\n" for document in found)
        write_text(path, lines)
    return documents(str(path), "text")


def _samples(model: nn.Module, reader: "Reader", *, batch: int, length: int, seed: int) -> Iterator[str]:
    """Sampled documents without end; those that stop before their first word are left out."""
    generator = seeding.stream(seed, "sampled text")
    while True:
        written = [d for d in map(reader.decode, _generate(model, reader, batch, length, generator)) if d.strip()]
        if not written:
            raise ValueError("the model samples nothing but special tokens; give text instead of sample://")
        yield from written


@torch.no_grad()
def _generate(model: nn.Module, reader: "Reader", batch: int, length: int, rng: torch.Generator) -> list[list[int]]:
    """`batch` sequences, each from the start token to the first special token, which is left out."""
    device = next(model.parameters()).device
    special = torch.tensor(reader.special)
    tokens = torch.full((batch, 1), reader.start)
    alive = torch.ones(batch, dtype=torch.bool)
    past, columns = None, []
    while alive.any() and len(columns) < length - 1:
        output = model(input_ids=tokens.to(device), past_key_values=past, use_cache=True)
        past = output.past_key_values
        # Embeddings are often padded past the tokenizer's last id.
        logits = output.logits[:, -1, : reader.size].float().cpu()
        tokens = torch.multinomial(logits.softmax(-1), 1, generator=rng)
        alive &= ~torch.isin(tokens[:, 0], special)
        columns.append(torch.where(alive, tokens[:, 0], -1))
    return [[t for t in row if t >= 0] for row in torch.stack(columns, 1).tolist()]


def _digest(model: nn.Module) -> str:
    """Hash of all weights, so that text sampled from one model is never taken for another's."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


# ---- windows of tokens -------------------------------------------------------------------------------------


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
        """A few windows at a time."""
        return (self[start : start + size] for start in range(0, len(self), size))

    def to(self, device: str | torch.device) -> "Windows":
        return Windows(*(t.to(device) for t in (self.ids, self.attention, self.keep, self.documents)))


@dataclass(frozen=True, eq=False, kw_only=True)
class Reader:
    """How a model reads text: its tokenizer and the token policy."""

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
        """Ids the tokenizer can give."""
        return len(self.tokenizer)

    @cached_property
    def special(self) -> list[int]:
        """Ids that stand for no text: BOS, EOS, unknown, chat markers, …"""
        added = {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        return sorted(added | set(self.tokenizer.all_special_ids) | ({self.bos} if self.bos is not None else set()))

    @cached_property
    def padding(self) -> int:
        """What windows are padded with; never looked at, but embedded."""
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
        """Tokens of text in a full window."""
        return self.context - self.prepend_bos

    @property
    def keeps_bos(self) -> bool:
        """Whether the BOS in front of every window is a row too."""
        return self.prepend_bos and not self.mask_special

    @property
    def prepend_bos(self) -> bool:
        return self.bos is not None

    def kept(self, ids: Int[Tensor, "*shape"]) -> Bool[Tensor, "*shape"]:
        if not self.mask_special:
            return torch.ones_like(ids, dtype=torch.bool)
        return ~torch.isin(ids, torch.tensor(self.special, dtype=ids.dtype, device=ids.device))

    def is_bos(self, tokens: Int[Tensor, " token"], places: Int[Tensor, " place"]) -> Bool[Tensor, " place"]:
        """Where the tokens at these places are the one that windows begin with."""
        if self.bos is None or not len(tokens):
            return torch.zeros_like(places, dtype=torch.bool)
        return tokens[places.clamp(max=len(tokens) - 1)] == self.bos

    def decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=False)

    def tokenise(self, documents: Sequence[Document]) -> list[Int[Tensor, " token"]]:
        """Ids of each document, without special tokens. Raises ValueError when text and tokenizer do not match."""
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
        """Windows with a token that is kept and another after it."""
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
        """Pack documents laid end to end; `index` says which each is. A BOS of the text's own in front of a document or
        a window (chat templates write one) is left out: the window's stands for it."""
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
        """These windows, padded on the right to the longest of them."""
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
        """The windows whose first kept token is number index * size to (index + 1) * size in the order of `seed`."""
        low, high = index * size, (index + 1) * size
        parts = []
        for epoch in range(low // max(self.total, 1), min(epochs, math.ceil(high / max(self.total, 1)))):
            order, starts = self._order(epoch, seed)
            parts.append(order[(starts >= low) & (starts < high)])
        found = torch.cat(parts) if parts else torch.empty(0, dtype=torch.long)
        return found if len(found) else None

    def _order(self, epoch: int, seed: int) -> tuple[Int[Tensor, " window"], Int[Tensor, " window"]]:
        """All windows, document by document, in the order of this epoch, and the number of each one's first token."""
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
    """The sum of all counts before each."""
    return counts.cumsum(0) - counts


# ---- corpora: random access to blocks of windows -----------------------------------------------------------


class Corpus(ABC):
    """Text as a model reads it, in blocks of windows."""

    @abstractmethod
    def block(self, index: int, *, split: Split, seed: int) -> tuple[Packed, Int[Tensor, " window"]] | None:
        """The windows of block `index`; None past the end."""

    @abstractmethod
    def pool(self, split: Split) -> Packed:
        """The windows that whole sequences are drawn from."""

    @abstractmethod
    def available(self, split: Split) -> float:
        """Kept tokens, counting epochs."""

    @abstractmethod
    def window_count(self, split: Split) -> float:
        """Windows from which a next token can be predicted; `inf` where their number is not known beforehand."""


def split_of(document: Document, eval_share: float) -> Split:
    """The split a document belongs to, by its content alone."""
    return "eval" if digest(document) < eval_share * 2**64 else "train"


def packed_splits(found: Tokenised, reader: Reader) -> dict[Split, Packed]:
    """Both splits of a corpus. Raises ValueError when text and tokenizer do not match."""
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
        """(document, ids) of every window of one pass, in stream order."""
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
