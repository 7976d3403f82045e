"""Documents sampled from a model: sample://count."""

import hashlib
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from torch import nn

from unbraid import seeding
from unbraid.sources.language_model.blocks import text_config
from unbraid.sources.language_model.hooks import call_frozen
from unbraid.sources.text.documents import count_and_seed, documents
from unbraid.sources.text.windows import Reader
from unbraid.system.files import write_text

SAMPLE_TOKENS = 512
"""Tokens of a sampled document at most (fewer where the model has fewer positions)."""


def sampled(text: str, model: nn.Module, reader: "Reader", *, batch: int, cache: Path) -> list[str]:
    """Return the documents of `sample://count[?seed=n]`: the model writes them at temperature 1.

    They are kept in the folder `cache` for the next time.
    """
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
    """Yield sampled documents without end; those that stop before their first word are left out."""
    generator = seeding.stream(seed, "sampled text")
    while True:
        written = [d for d in map(reader.decode, _generate(model, reader, batch, length, generator)) if d.strip()]
        if not written:
            raise ValueError("the model samples nothing but special tokens; give text instead of sample://")
        yield from written


@torch.no_grad()
def _generate(model: nn.Module, reader: "Reader", batch: int, length: int, rng: torch.Generator) -> list[list[int]]:
    """Return `batch` sequences, each from the start token to the first special token, which is left out."""
    device = next(model.parameters()).device
    special = torch.tensor(reader.special)
    tokens = torch.full((batch, 1), reader.start)
    alive = torch.ones(batch, dtype=torch.bool)
    past, columns = None, []
    if text_config(model) is None:
        raise ValueError(
            f"{type(model).__name__} cannot write documents token by token; give text instead of sample://"
        )
    while alive.any() and len(columns) < length - 1:
        output = call_frozen(model, input_ids=tokens.to(device), past_key_values=past, use_cache=True)
        past = output.past_key_values
        # Embeddings are often padded past the tokenizer's last id.
        logits = output.logits[:, -1, : reader.size].float().cpu()
        tokens = torch.multinomial(logits.softmax(-1), 1, generator=rng)
        alive &= ~torch.isin(tokens[:, 0], special)
        columns.append(torch.where(alive, tokens[:, 0], -1))
    return [[t for t in row if t >= 0] for row in torch.stack(columns, 1).tolist()]


def _digest(model: nn.Module) -> str:
    """Return the hash of all weights, so that text sampled from one model is never taken for another's."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
