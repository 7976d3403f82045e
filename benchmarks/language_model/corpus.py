"""The training data of the embedded model: documents as rows of token ids, each place with what may follow it.

The language knows the exact distribution of the next word, so training learns from that and not from one word drawn
from it: the expected gradient is the same, its noise is not. Documents are never joined; padding is on the right.
"""

import random
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from benchmarks.language_model.entropy import entropy_rate
from unbraid import seeding
from unbraid.sources.synthetic_language.documents import documents, next_word, words
from unbraid.sources.synthetic_language.grammar import relevant
from unbraid.sources.synthetic_language.lexicon import BOS, IDS, SPECIAL
from unbraid.sources.synthetic_language.states import State

SHARD = 4096
"""Rows sorted by length together, so that a batch holds little padding."""


def bos_in_front(tokenizer: Tokenizer) -> processors.TemplateProcessing:
    """What says that a text begins with BOS, as every text does in training."""
    bos = SPECIAL[1]
    return processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )


class Row(NamedTuple):
    """A document: BOS and its words, and the state at each place that a word follows, by number."""

    ids: list[int]
    states: list[int]


class Rows(NamedTuple):
    """Rows of one length: ids and states, -1 where a row has ended."""

    ids: Tensor
    states: Tensor


def collate(rows: Sequence[Row]) -> Rows:
    """Return rows as two tensors, padded with -1 on the right."""
    longest = max(len(row.ids) for row in rows)
    padded = [[part + [-1] * (longest - len(part)) for part in row] for row in rows]
    return Rows(*(torch.tensor(part) for part in zip(*padded, strict=True)))


class NextWords:
    """The exact distributions of next words, by the numbers of the states they follow from."""

    def __init__(self) -> None:
        self.numbers: dict[State, int] = {}
        self.found: list[Tensor] = []

    def number(self, state: State) -> int:
        """Return the number of a state, the same for all that the next word cannot tell apart."""
        known = relevant(state)
        if known not in self.numbers:
            self.numbers[known] = len(self.found)
            self.found.append(next_word(known).float())
        return self.numbers[known]

    def after(self, states: Tensor) -> Tensor:
        """Return the distributions that follow states, [state, vocabulary]."""
        different, which = states.unique(return_inverse=True)
        return torch.stack([self.found[number] for number in different.tolist()])[which]


class Language:
    """Documents of the synthetic language, made as they are needed."""

    context = 128
    """Longest row."""

    def __init__(self, seed: int):
        self.seed = seed
        self.next_words = NextWords()

    def tokenizer(self) -> PreTrainedTokenizerFast:
        tokenizer = Tokenizer(models.WordLevel(dict(IDS), unk_token=SPECIAL[0]))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
        tokenizer.post_processor = bos_in_front(tokenizer)
        unknown, bos, eos = SPECIAL
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, unk_token=unknown, bos_token=bos, eos_token=eos, pad_token=eos
        )

    def encoded(self, count: int, seed: int) -> Iterator[Row]:
        """Yield documents as rows."""
        for document in documents(count, seed=seed):
            states = [self.next_words.number(word.before) for word in document]
            yield Row([BOS, *(IDS[word] for word in words(document))], [*states, -1])

    def rows(self, skip: int) -> Iterator[Row]:
        """Yield training rows without end, after the first `skip` tokens."""
        for shard in range(10**9):
            for row in self.encoded(SHARD, seeding.integer(self.seed, f"language/train/{shard}")):
                skip -= len(row.ids)
                if skip < 0:
                    yield row

    def held_out(self) -> Iterator[Rows]:
        """Yield batches that nothing is trained on."""
        rows = list(self.encoded(4096, seeding.integer(self.seed, "language/held-out")))
        for start in range(0, len(rows), 64):
            yield collate(rows[start : start + 64])

    def reference(self) -> tuple[float, float]:
        """Return the entropy rate of the language and its standard error, nats a word: the least loss there is."""
        return entropy_rate()

    def batches(self, tokens: int, skip: int) -> Iterator[Rows]:
        """Yield batches of about `tokens` tokens, rows of one length together, in a random order."""
        rows = self.rows(skip)
        shuffle = random.Random(skip)
        while shard := sorted(islice(rows, SHARD), key=lambda row: len(row.ids)):
            batches, start = [], 0
            while start < len(shard):
                longest = len(shard[min(len(shard) - 1, start + tokens // len(shard[start].ids))].ids)
                size = max(1, tokens // longest)
                batches.append(collate(shard[start : start + size]))
                start += size
            shuffle.shuffle(batches)
            yield from batches
