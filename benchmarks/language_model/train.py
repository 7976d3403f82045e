"""Train the embedded model: a Llama-style decoder on the synthetic language.

    python -m benchmarks.language_model.train --out src/unbraid/sources/synthetic_language/model

It takes half an hour on one core, in bfloat16 products where the processor has them. A run can be stopped and
continued: the state is saved every few minutes beside the model, and removed when training ends.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.language_model.corpus import Language, NextWords, Rows
from unbraid import seeding

ABOVE = 1.05
"""Largest held-out loss of a model that is used, as a multiple of the entropy rate."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    hidden: int = 128
    layers: int = 5
    heads: int = 4
    inner: int = 344
    """Width of the gated MLP."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    tokens: int = 12_000_000
    batch: int = 4096
    """Tokens a step, about."""
    lr: float = 3e-3
    warmup: float = 0.04
    """Share of training over which the learning rate rises."""
    decay: float = 0.6
    """Share of training, at the end, over which it falls linearly to 0."""
    weight_decay: float = 0.05
    seed: int = 0
    save_seconds: float = 300.0


def main(out: Path, schedule: Schedule = Schedule(), shape: Shape = Shape()) -> None:
    """Train on documents of the synthetic language. Exits with an error where the loss stays too high."""
    train(Language(seed=schedule.seed), shape, schedule, out)


def train(corpus: Language, shape: Shape, schedule: Schedule, out: Path) -> None:
    tokenizer = corpus.tokenizer()
    torch.manual_seed(seeding.integer(schedule.seed, "model/initialisation"))
    model = LlamaForCausalLM(configuration(shape, len(tokenizer), corpus.context))
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, vocabulary {len(tokenizer)}")
    optimiser = build_optimiser(model, schedule)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(out)
    state = State(out / "training.safetensors", model, optimiser)
    done, losses = state.load(), []
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    saved = time.monotonic()
    with Progress(*columns) as progress, (out / "training.jsonl").open("a") as log:
        bar = progress.add_task("training", total=schedule.tokens, completed=done)
        for step, rows in enumerate(corpus.batches(schedule.batch, done)):
            if done >= schedule.tokens:
                break
            progressed = min(1.0, done / schedule.tokens)
            losses.append(learn(model, optimiser, rows, corpus.next_words, schedule, progressed))
            done += int((rows.ids >= 0).sum())
            progress.update(bar, completed=done, description=f"loss {sum(losses[-50:]) / len(losses[-50:]):.3f}")
            if step % 50 == 0:
                print(json.dumps({"tokens": done, "loss": sum(losses[-50:]) / len(losses[-50:])}), file=log, flush=True)
            if time.monotonic() - saved > schedule.save_seconds:
                state.save(done)
                saved = time.monotonic()
    loss, (rate, error) = held_out_loss(model, corpus), corpus.reference()
    reference = f"entropy rate of the language {rate:.4f} +- {error:.4f} nats a word"
    finish(model, reference, shape, schedule, loss, done, out)
    state.path.unlink(missing_ok=True)
    print(f"held-out loss {loss:.4f} nats a token after {done:,} tokens; {reference}")
    if loss > ABOVE * rate:
        raise SystemExit(
            f"the loss is {loss / rate - 1:.1%} above the entropy rate, and {ABOVE - 1:.0%} was allowed: train on more "
            "tokens (--schedule.tokens) or a larger model (--shape.hidden, --shape.layers) before it is used"
        )


def configuration(shape: Shape, vocabulary: int, context: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocabulary, hidden_size=shape.hidden, intermediate_size=shape.inner, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.heads, max_position_embeddings=context,
        tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip


def build_optimiser(model: LlamaForCausalLM, schedule: Schedule) -> torch.optim.AdamW:
    # Vectors (norms) and the embedding, whose rows are mostly untouched in a step, are not pulled to zero.
    decayed = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    groups = [{"params": decayed, "weight_decay": schedule.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=schedule.lr, betas=(0.9, 0.98))


def learn(
    model: LlamaForCausalLM,
    optimiser: torch.optim.AdamW,
    rows: Rows,
    next_words: NextWords,
    schedule: Schedule,
    progress: float,
) -> float:
    """Take one step; return the loss before it, nats a token: cross-entropy with the exact distributions."""
    rate = schedule.lr * min(1.0, progress / schedule.warmup + 1e-3, (1 - progress) / schedule.decay + 1e-3)
    places = rows.states >= 0
    with torch.autocast("cpu", torch.bfloat16):
        logits = logits_of(model, rows.ids)[places]
    loss = cross_entropy(logits.float(), next_words.after(rows.states[places]))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return float(loss.detach())


def logits_of(model: LlamaForCausalLM, ids: Tensor) -> Tensor:
    """Return the logits of rows; padding is only ever on the right, where causal attention does not look."""
    found: Any = model(input_ids=ids.clamp(min=0), use_cache=False)
    return found.logits


def loss_of(model: LlamaForCausalLM, ids: Tensor, reduction: str = "mean") -> Tensor:
    """Return the cross-entropy of the tokens that came next, padding left out."""
    logits = logits_of(model, ids)
    return cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), ignore_index=-1, reduction=reduction)


@torch.no_grad()
def held_out_loss(model: LlamaForCausalLM, corpus: Language) -> float:
    total = count = 0.0
    for rows in corpus.held_out():
        total += float(loss_of(model, rows.ids, "sum"))
        count += int((rows.ids[:, 1:] >= 0).sum())
    return total / count


def finish(
    model: LlamaForCausalLM, reference: str, shape: Shape, schedule: Schedule, loss: float, done: int, out: Path
) -> None:
    model.save_pretrained(out)
    card = {
        "held_out_loss": round(loss, 4), "tokens": done, "corpus": reference, "seed": schedule.seed,
        "shape": vars(shape), "schedule": {k: v for k, v in vars(schedule).items() if k != "save_seconds"},
        "torch": torch.__version__,
    }  # fmt: skip
    (out / "training.json").write_text(json.dumps(card, indent=2) + "\n")


@dataclass(frozen=True)
class State:
    """Weights and optimiser on disk, so that a stopped run continues. Safetensors: no pickle."""

    path: Path
    model: LlamaForCausalLM
    optimiser: torch.optim.AdamW

    def save(self, done: int) -> None:
        tensors = {f"model.{n}": p.detach().contiguous() for n, p in self.model.named_parameters()}
        for i, entries in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{i}.{name}": torch.as_tensor(value) for name, value in entries.items()}
        partial = self.path.with_suffix(".partial")
        save_file(tensors, partial, metadata={"tokens": str(done)})
        partial.replace(self.path)

    def load(self) -> int:
        """Tokens already seen; 0 when there is nothing to continue."""
        if not self.path.exists():
            return 0
        from safetensors import safe_open

        tensors = load_file(self.path)
        weights = {n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")}
        self.model.load_state_dict(weights, strict=False)  # tied weights are stored once
        states: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimiser."):
                _, i, entry = name.split(".")
                states.setdefault(int(i), {})[entry] = tensor
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": states})
        with safe_open(self.path, "pt") as opened:
            return int(opened.metadata()["tokens"])


if __name__ == "__main__":
    tyro.cli(main)
