"""The training data of the embedded model: rows of token ids, documents never joined, padding -1 on the right."""

import random
from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from benchmarks.language_model.entropy import entropy_rate
from unbraid import seeding
from unbraid.sources.synthetic_language.documents import documents, words
from unbraid.sources.synthetic_language.lexicon import BOS, IDS, SPECIAL

SHARD = 4096
"""Rows sorted by length together, so that a batch holds little padding."""


def bos_in_front(tokenizer: Tokenizer) -> processors.TemplateProcessing:
    """What says that a text begins with BOS, as every text does in training."""
    bos = SPECIAL[1]
    return processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )


def collate(rows: Sequence[list[int]]) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [-1] * (longest - len(row)) for row in rows])


class Language:
    """Documents of the synthetic language, made as they are needed."""

    context = 128
    """Longest row."""

    def __init__(self, seed: int):
        self.seed = seed

    def tokenizer(self) -> PreTrainedTokenizerFast:
        tokenizer = Tokenizer(models.WordLevel(dict(IDS), unk_token=SPECIAL[0]))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
        tokenizer.post_processor = bos_in_front(tokenizer)
        unknown, bos, eos = SPECIAL
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, unk_token=unknown, bos_token=bos, eos_token=eos, pad_token=eos
        )

    def rows(self, skip: int) -> Iterator[list[int]]:
        """Training rows without end, after the first `skip` tokens."""
        for shard in range(10**9):
            for row in encoded(SHARD, seeding.integer(self.seed, f"language/train/{shard}")):
                skip -= len(row)
                if skip < 0:
                    yield row

    def held_out(self) -> Iterator[Tensor]:
        """Batches nothing is trained on."""
        rows = list(encoded(4096, seeding.integer(self.seed, "language/held-out")))
        for start in range(0, len(rows), 64):
            yield collate(rows[start : start + 64])

    def reference(self) -> str:
        """The number that the loss should be compared with."""
        rate, error = entropy_rate()
        return f"entropy rate of the language {rate:.4f} +- {error:.4f} nats a word"

    def batches(self, tokens: int, skip: int) -> Iterator[Tensor]:
        """Batches of about `tokens` tokens, rows of one length together, in a random order."""
        rows = self.rows(skip)
        shuffle = random.Random(skip)
        while True:
            shard = sorted(islice(rows, SHARD), key=len)
            batches, start = [], 0
            while start < len(shard):
                size = max(1, tokens // len(shard[min(len(shard) - 1, start + tokens // len(shard[start]))]))
                batches.append(collate(shard[start : start + size]))
                start += size
            shuffle.shuffle(batches)
            yield from batches


def encoded(count: int, seed: int) -> Iterator[list[int]]:
    for document in documents(count, seed=seed):
        yield [BOS, *(IDS[word] for word in words(document))]
