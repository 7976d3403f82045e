"""Documents as token ids: many at once, in one flat array, whether they are text or ids already."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from unbraid.sources.text.cutting import cut
from unbraid.sources.text.documents import Document
from unbraid.system.memory import free_memory
from unbraid.system.notices import Pace, log

AT_ONCE = 2_000_000
"""Characters tokenised at once: a tokenizer holds some hundred bytes a token meanwhile."""
DOCUMENTS_AT_ONCE = 16_384
BYTES_A_TOKEN = 10
"""Bytes of memory needed per token at the peak, while parts are joined and split."""
MEMORY_SHARE = 0.7
"""The share of free memory that tokens may take."""
FEW = 8
"""Different documents that are counted; more are many."""
SPELT_SHARE = 0.3
"""Share of single-byte tokens above which the user is warned that text is spelt out."""
TOKENS_A_CHARACTER = 1.1
"""Tokens per character above which the user is warned, for tokenizers without single-byte tokens."""
LEAST_VOCABULARY = 1000
"""A smaller vocabulary is meant to spell: of bytes or characters."""


@dataclass(frozen=True)
class Ids:
    """Token ids of documents, laid end to end."""

    flat: Int[Tensor, " token"]
    lengths: Int[Tensor, " document"]

    def each(self) -> list[Int[Tensor, " token"]]:
        return list(self.flat.split(self.lengths.tolist()))


def encode(tokenizer: Any, documents: Sequence[Document]) -> Ids:
    """Return the ids of each document, without special tokens around it. Long ones are tokenised in parts."""
    pieces = [list(cut(d, AT_ONCE)) if isinstance(d, str) and len(d) > AT_ONCE else [d] for d in documents]
    found = [laid(rows_of(tokenizer, part)) for part in parts(chain.from_iterable(pieces))]
    flat = np.concatenate([np.empty(0, np.int32), *(ids for ids, _ in found)])
    lengths = np.concatenate([np.empty(0, np.int64), *(lengths for _, lengths in found)])
    if len(lengths) != len(documents):
        counts = np.fromiter(map(len, pieces), np.int64, len(pieces))
        lengths = np.add.reduceat(lengths, counts.cumsum() - counts)
    return Ids(torch.from_numpy(flat), torch.from_numpy(lengths))


def laid(rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return rows laid end to end, and their lengths."""
    flat = np.fromiter(chain.from_iterable(rows), np.int32, sum(map(len, rows)))
    return flat, np.fromiter(map(len, rows), np.int64, len(rows))


def parts(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Yield lists of a bounded number of documents and of characters (but for a document that is longer)."""
    part: list[Document] = []
    size = 0
    for document in documents:
        if part and (size + len(document) > AT_ONCE or len(part) == DOCUMENTS_AT_ONCE):
            yield part
            part, size = [], 0
        part.append(document)
        size += len(document)
    if part:
        yield part


def rows_of(tokenizer: Any, documents: Sequence[Document]) -> list[Sequence[int]]:
    texts = [document for document in documents if isinstance(document, str)]
    found = iter(tokenised(tokenizer, texts))
    return [next(found) if isinstance(document, str) else ids_of(document) for document in documents]


def tokenised(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Return the ids of each text, without special tokens added."""
    if not texts:
        return []
    if getattr(tokenizer, "is_fast", False):
        # Straight to the Rust part: the way around it takes half as long again.
        backend = tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = getattr(tokenizer, "split_special_tokens", False)
        return [found.ids for found in backend.encode_batch_fast(texts, add_special_tokens=False)]
    return tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]


def ids_of(row: Sequence[int]) -> Sequence[int]:
    if row and not (min(row) >= 0 and max(row) < 2**31):
        raise ValueError(f"a row of token ids holds {min(row)} to {max(row)}; ids are whole numbers from 0")
    return row


def digest(document: Document) -> int:
    """Return 64 bits of a hash of the document's content."""
    if isinstance(document, str):
        data = document.encode("utf-8", "surrogatepass")
    else:
        data = np.asarray(document, np.int64).tobytes()
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big")


@dataclass(frozen=True)
class Tokenised:
    """A whole corpus as token ids."""

    ids: Ids
    held: Tensor
    """A mask of the documents that belong to the eval split."""
    characters: int
    longest: int
    """Characters, or ids, of the longest document."""
    different: int
    """Documents that are no copies of others, once there are `FEW` no longer counted."""

    def of(self, rows: Tensor) -> Ids:
        """Return the documents that a mask chooses."""
        return Ids(self.ids.flat[rows.repeat_interleave(self.ids.lengths)], self.ids.lengths[rows])


def tokenise_all(documents: Iterable[Document], tokenizer: Any, eval_share: float) -> Tokenised:
    """Read and tokenise all documents, a part at a time. Raises ValueError when their ids would not fit in memory."""
    pace, free = Pace("tokenising"), free_memory()
    found: list[Ids] = []
    held: list[bool] = []
    seen: set[int] = set()
    characters = tokens = longest = 0
    for part in parts(documents):
        digests = [digest(document) for document in part]
        if len(seen) < FEW:
            seen.update(digests)
        held += [number < eval_share * 2**64 for number in digests]
        found.append(encode(tokenizer, part))
        characters += sum(len(document) for document in part if isinstance(document, str))
        tokens += len(found[-1].flat)
        longest = max(longest, *map(len, part))
        if tokens * BYTES_A_TOKEN > MEMORY_SHARE * free:
            raise ValueError(
                f"the text does not fit in memory: its first {len(held):,} documents have {tokens:,} tokens, and the "
                f"{free:,} bytes that are free take {MEMORY_SHARE * free / BYTES_A_TOKEN:,.0f}; give less of it, or "
                "stream it from hf://owner/name"
            )
        pace.at(tokens, f"{len(held):,} documents, {tokens:,} tokens")
    flat = torch.cat([torch.empty(0, dtype=torch.int32), *(ids.flat for ids in found)])
    lengths = torch.cat([torch.empty(0, dtype=torch.long), *(ids.lengths for ids in found)])
    return Tokenised(Ids(flat, lengths), torch.tensor(held, dtype=torch.bool), characters, longest, len(seen))


def warn_if_spelt(tokenizer: Any, ids: Int[Tensor, " token"], characters: int) -> None:
    """Warn when the tokenizer has no words for this text and spells it out, byte by byte."""
    vocabulary = tokenizer.get_vocab()
    if not characters or not len(ids):
        return
    bytes_ = torch.tensor(sorted(i for token, i in vocabulary.items() if is_byte(token)), dtype=ids.dtype)
    share, ratio = float(torch.isin(ids, bytes_).float().mean()), len(ids) / characters
    many = ratio > TOKENS_A_CHARACTER and len(vocabulary) >= LEAST_VOCABULARY
    if share > SPELT_SHARE or many:
        said = f"{share:.0%} of its tokens are single bytes, " if share > SPELT_SHARE else ""
        log.warning(
            "the tokenizer spells this text out (%s%.1f tokens a character): its model was hardly trained on it, "
            "so give text in its languages", said, ratio,
        )  # fmt: skip


def is_byte(token: str) -> bool:
    """Return whether a token is a single byte and no text, as SentencePiece writes it: <0xE4>."""
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")
