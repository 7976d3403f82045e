"""What the models are trained on: rows of token ids, documents never joined, padding -1 on the right."""

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from unbraid import seeding
from unbraid.language.documents import documents, entropy_rate, words
from unbraid.language.lexicon import BOS, IDS, SPECIAL
from unbraid.text import documents as text_documents

SHARD = 4096
"""Rows sorted by length together, so that a batch holds little padding."""
TRAIN_SEED, EVAL_SEED = 1, 2


class Corpus(ABC):
    context: int
    """Longest row."""

    @abstractmethod
    def tokenizer(self) -> PreTrainedTokenizerFast: ...

    @abstractmethod
    def rows(self, skip: int) -> Iterator[list[int]]:
        """Training rows without end, after the first `skip` tokens."""

    @abstractmethod
    def held_out(self) -> Iterator[Tensor]:
        """Batches nothing is trained on."""

    @abstractmethod
    def reference(self) -> str:
        """What the loss should be compared with."""

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


def bos_in_front(tokenizer: Tokenizer) -> processors.TemplateProcessing:
    """What says that a text begins with BOS, as every text does in training."""
    bos = SPECIAL[1]
    return processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )


def collate(rows: Sequence[list[int]]) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [-1] * (longest - len(row)) for row in rows])


class Language(Corpus):
    """Documents of the synthetic language, made as they are needed."""

    context = 128

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
        for shard in range(10**9):
            for row in encoded(SHARD, seeding.integer(self.seed, f"language/train/{shard}")):
                skip -= len(row)
                if skip < 0:
                    yield row

    def held_out(self) -> Iterator[Tensor]:
        rows = list(encoded(4096, seeding.integer(self.seed, "language/held-out")))
        for start in range(0, len(rows), 64):
            yield collate(rows[start : start + 64])

    def reference(self) -> str:
        rate, error = entropy_rate()
        return f"entropy rate of the language {rate:.4f} +- {error:.4f} nats a word"


def encoded(count: int, seed: int) -> Iterator[list[int]]:
    for told in documents(count, seed=seed):
        yield [BOS, *(IDS[word] for word in words(told))]


@dataclass(frozen=True, eq=False)
class English(Corpus):
    """Real text in windows, with lines that spell words mixed in, so that spelling can be learnt."""

    files: tuple[Path, ...]
    vocabulary: int
    seed: int
    context: int = 256  # pyright: ignore[reportIncompatibleVariableOverride]
    spelling: float = 0.15
    """Share of rows that spell words."""
    eval_share: float = 0.005

    @cached_property
    def texts(self) -> list[str]:
        found = [d for path in self.files for d in text_documents(str(path), "text")]
        random.Random(seeding.integer(self.seed, "english/order")).shuffle(found)
        return found

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        tokenizer = Tokenizer(models.BPE())
        # Digits one by one, and a space joined to the word after it, as GPT-2 does.
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocabulary, special_tokens=list(SPECIAL), show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )  # fmt: skip
        tokenizer.train_from_iterator(self.texts[:20_000], trainer)
        return tokenizer

    def tokenizer(self) -> PreTrainedTokenizerFast:
        unknown, bos, eos = SPECIAL
        tokenizer = Tokenizer.from_str(self._tokenizer.to_str())  # training encodes text without it
        tokenizer.post_processor = bos_in_front(tokenizer)
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, unk_token=unknown, bos_token=bos, eos_token=eos, pad_token=eos
        )

    @cached_property
    def _windows(self) -> Tensor:
        """Every full window of the training text [windows, context], int16: BOS, then tokens of one document."""
        held = round(self.eval_share * len(self.texts))
        found = [w for d in self._tokenizer.encode_batch_fast(self.texts[held:]) for w in windows(d.ids, self.context)]
        return torch.tensor(found, dtype=torch.int16)

    def rows(self, skip: int) -> Iterator[list[int]]:
        seen = 0
        for epoch in range(10**9):
            order = torch.randperm(len(self._windows), generator=seeding.stream(self.seed, f"english/{epoch}"))
            speller = random.Random(seeding.integer(self.seed, f"english/spelling/{epoch}"))
            for i in order.tolist():
                rows = [self._windows[i].tolist()]
                if speller.random() < self.spelling:
                    rows.append(self._spelling(speller))
                for row in rows:
                    seen += len(row)
                    if seen > skip:
                        yield row

    def held_out(self) -> Iterator[Tensor]:
        held = round(self.eval_share * len(self.texts))
        found = [w for d in self._tokenizer.encode_batch(self.texts[:held]) for w in windows(d.ids, self.context)][:512]
        for start in range(0, len(found), 16):
            yield torch.tensor(found[start : start + 16])

    def reference(self) -> str:
        return f"{len(self.files)} files, {self._windows.numel():,} tokens of text, vocabulary {self.vocabulary}"

    @cached_property
    def _words(self) -> list[str]:
        """Words that are one token, the ones whose letters a model can only know by having been told."""
        vocabulary = self._tokenizer.get_vocab()
        return sorted(
            w[1:] for w in vocabulary if w.startswith("Ġ") and w[1:].isascii() and w[1:].isalpha() and len(w) > 3
        )

    def _spelling(self, rng: random.Random) -> list[int]:
        """A window of lines such as `cat: C-A-T` and `cat has the first letter: C`."""
        lines = ""
        while True:
            word = rng.choice(self._words)
            spelled = f" {word}: {'-'.join(word.upper())}\n"
            line = spelled if rng.random() < 0.5 else f" {word} has the first letter: {word[0].upper()}\n"
            ids = [1, *self._tokenizer.encode(lines + line).ids]
            if len(ids) > self.context:
                return ids[: self.context]
            lines += line


def windows(ids: list[int], context: int) -> Iterator[list[int]]:
    """Full windows of a document, each with the start token; what is left at its end is dropped."""
    size = context - 1
    for start in range(0, len(ids) - size + 1, size):
        yield [1, *ids[start : start + size]]
